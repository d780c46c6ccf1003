"""Rules for the template that cfn-lint does not have: it knows properties, references and what AWS can do.

Each rule looks at one deployment and speaks in words.

The rules on alarms and on the dashboard are in modules of their own; :func:`violations` applies all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any

import msgspec
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from flask_langpont_session.ops.exporters import catalogue
from tests.infra.template import REGION, Deployment, is_allowed, scope

Rule = Callable[[Deployment], Iterator[str]]
RULES: dict[str, Rule] = {}

GROUP, SERVERLESS = "AWS::ElastiCache::ReplicationGroup", "AWS::ElastiCache::ServerlessCache"
TOPICS = ("InfoTopic", "WarningTopic", "CriticalTopic", "EmergencyTopic")
EVENTS = "EventsTopic"
"""The topic of ElastiCache's own events."""
NAMED = {
    "ReplicationGroupId", "CacheSubnetGroupName", "CacheParameterGroupName", "GroupName", "AlarmName", "TopicName",
    "LogGroupName", "DashboardName", "UserId", "ManagedPolicyName", "Name", "ServerlessCacheName",
}  # fmt: skip
"""Properties that give a resource a name that must be its own in the account."""
AUTH_LENGTHS = range(16, 129)
RIGHTS = {
    "-@all", "+@read", "+@write", "+@connection", "+@transaction", "+@scripting", "-@dangerous", "+info", "+time",
    "+cluster|slots", "+cluster|info",
}  # fmt: skip
"""What the extension needs, on its keys; test_access.py proves that it is enough."""
_USER_ID = re.compile(r"[a-z][a-z0-9-]{0,39}")
_OF_ONE_ACCOUNT = {
    "an account id": re.compile(r"\b\d{12}\b"),
    "a region": re.compile(r"\b(?:ap|us|eu|ca|sa|me|af)-[a-z]+-\d\b"),
    "a partition": re.compile(r"arn:aws[a-z-]*:"),
}
POLICY_VERSION = "2012-10-17"


def rule(check: Rule) -> Rule:
    """Add a rule under its function's name."""
    RULES[check.__name__] = check
    return check


def violations(deployment: Deployment, rules: Mapping[str, Rule] = RULES) -> list[tuple[str, str]]:
    """(rule, what is wrong) for everything that is wrong."""
    return [(name, text) for name, check in rules.items() for text in check(deployment)]


def resource_type(resource: Any) -> str:
    """The type of a resource as written; empty for what is none."""
    return str(resource.get("Type", "")) if isinstance(resource, dict) else ""


def resource_properties(resource: Any) -> dict[str, Any]:
    """The properties of a resource as written."""
    properties = resource.get("Properties", {}) if isinstance(resource, dict) else {}
    return properties if isinstance(properties, dict) else {}


def group(deployment: Deployment) -> dict[str, Any]:
    """The properties of the one replication group; empty if it is missing, which `topology` reports."""
    return next(iter(deployment.of_type(GROUP).values()), {})


def engine_of(deployment: Deployment) -> Any:
    """The engine of the group or the serverless cache."""
    return next(iter({**deployment.of_type(GROUP), **deployment.of_type(SERVERLESS)}.values()), {}).get("Engine")


def group_id(deployment: Deployment) -> str:
    """Return the value of ``Ref`` of the replication group."""
    name = next(iter(deployment.of_type(GROUP)), "Cache")
    return deployment.physical.get(name, f"<{name}>")


def is_cluster(deployment: Deployment) -> bool:
    """Return whether the group is made in cluster mode."""
    return bool(deployment.parameters["ClusterMode"] == "enabled")


def nodes(deployment: Deployment) -> list[str]:
    """The ids of the nodes that the group will have: these are the values of the dimension CacheClusterId."""
    shards = int(deployment.parameters["NumShards"])
    members = range(1, int(deployment.parameters["ReplicasPerShard"]) + 2)
    if not is_cluster(deployment):
        return [f"{group_id(deployment)}-{node:03}" for node in members]
    return [f"{group_id(deployment)}-{s:04}-{n:03}" for s, n in product(range(1, shards + 1), members)]


# The document


@rule
def literals(d: Deployment) -> Iterator[str]:
    """No account, region, partition or token is written down: the same text must do for every account."""
    written = "\n".join(map(str, scope({part: d.template.get(part) for part in ("Mappings", "Resources", "Outputs")})))
    for what, pattern in _OF_ONE_ACCOUNT.items():
        for found in pattern.finditer(written):
            yield f"{what} is written down: {found[0]}"


@rule
def parameters(d: Deployment) -> Iterator[str]:
    """Every parameter refuses values that cannot work."""
    for name, parameter in d.template.get("Parameters", {}).items():
        bounded = {"MinValue", "MaxValue"} <= set(parameter)
        by_aws = parameter["Type"].startswith(("AWS::", "List<AWS::"))
        if not by_aws and not bounded and not {"AllowedValues", "AllowedPattern"} & set(parameter):
            yield f"{name} takes any value"
        if "token" in name.lower() or "password" in name.lower():
            yield f"{name}: a secret would be a plain parameter"
        if "Default" in parameter and not is_allowed(parameter, parameter["Default"]):
            yield f"{name}: its own default is not allowed"


@rule
def physical_names(d: Deployment) -> Iterator[str]:
    """Names are left to CloudFormation or contain the stack's, so that two environments live in one account."""
    for name, resource in d.template.get("Resources", {}).items():
        # A replication group only refers to these two.
        named = (
            NAMED - {"CacheSubnetGroupName", "CacheParameterGroupName"} if resource_type(resource) == GROUP else NAMED
        )
        for key in named & set(resource_properties(resource)):
            if not {"AWS::StackName", "AWS::StackId"} & _mentioned(resource_properties(resource)[key]):
                yield f"{name}.{key} is the same in every stack"
    id_ = group(d).get("ReplicationGroupId", "fine")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,39}", id_) or "--" in id_ or id_.endswith("-"):
        yield f"ReplicationGroupId {id_} is malformed"


@rule
def retention(d: Deployment) -> Iterator[str]:
    """Deleting or replacing keeps what cannot be made again."""
    for name, resource in d.resources.items():
        wanted = {GROUP: "Snapshot", "AWS::SecretsManager::Secret": "Retain"}.get(resource["Type"])
        for key in ("DeletionPolicy", "UpdateReplacePolicy"):
            if wanted and resource.get(key) != wanted:
                yield f"{name}: {key} must be {wanted}"
    if d.parameters["Environment"] == "production" and not group(d).get("SnapshotRetentionLimit"):
        yield "production keeps no snapshots"
    if not 0 <= group(d).get("SnapshotRetentionLimit", 0) <= 35:
        yield "snapshots are kept for 35 days at most"


@rule
def replacement(d: Deployment) -> Iterator[str]:
    """No update makes the group anew unless a parameter says that it does: what can be set only when a group is made is
    a parameter's own value, or written down."""
    for key in set(group(d)) & set(_made_once()) - {"AtRestEncryptionEnabled", "Port"}:
        if key not in ("CacheSubnetGroupName", "KmsKeyId", "SnapshotName"):
            yield f"{key} cannot be changed on a group that runs"
    for name, resource in d.resources.items():
        if resource["Type"] == GROUP and resource.get("UpdatePolicy") != {"UseOnlineResharding": True}:
            yield f"{name}: another number of shards would replace the group"


@cache
def _made_once() -> frozenset[str]:
    described = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, GROUP).schema
    paths = [*described["createOnlyProperties"], *described["conditionalCreateOnlyProperties"]]
    return frozenset(path.rsplit("/", 1)[1] for path in paths)


@rule
def keys(d: Deployment) -> Iterator[str]:
    """If a key of one's own is given, it encrypts all that can be read at rest; if not, nothing names one."""
    wanted = d.parameters["KmsKeyArn"] or None
    places = dict.fromkeys((GROUP, SERVERLESS, "AWS::SecretsManager::Secret", "AWS::Logs::LogGroup"), "KmsKeyId")
    for name, resource in d.resources.items():
        key = "KmsMasterKeyId" if name in TOPICS else places.get(resource["Type"])
        if key and resource.get("Properties", {}).get(key) != wanted:
            yield f"{name}: {key} is {resource.get('Properties', {}).get(key)}, not {wanted}"


# The cache


@rule
def failover(d: Deployment) -> Iterator[str]:
    """Failover where there is a replica, and always in cluster mode; several zones where there is a replica."""
    replicas, sharded = int(d.parameters["ReplicasPerShard"]), is_cluster(d)
    for key, wanted in (("AutomaticFailoverEnabled", replicas > 0 or sharded), ("MultiAZEnabled", replicas > 0)):
        if group(d).get(key) is not wanted:
            yield f"{key} is {group(d).get(key)} with {replicas} replicas"


@rule
def encryption(d: Deployment) -> Iterator[str]:
    """Encrypted at rest and in transit, in every environment."""
    g = group(d)
    if g.get("TransitEncryptionEnabled") is not True or g.get("TransitEncryptionMode") != "required":
        yield "in transit"
    if g.get("AtRestEncryptionEnabled") is not True:
        yield "at rest"


@rule
def authentication(d: Deployment) -> Iterator[str]:
    """The group takes users, whatever their credentials are: going from an AUTH token to users would make the group
    anew."""
    if "AuthToken" in group(d):
        yield "an AUTH token on the group itself cannot be given up for users on a group that runs"
    if group(d).get("UserGroupIds") != [f"<{name}>" for name in d.of_type("AWS::ElastiCache::UserGroup")]:
        yield "the group takes anybody, or a user group that is not of this template"


@rule
def user_group(d: Deployment) -> Iterator[str]:
    """The users that AuthMode asks for are in it, on the cache's engine; Redis OSS wants a default user, who may do
    nothing."""
    mode, engine_ = d.parameters["AuthMode"], engine_of(d)
    wanted = (
        ["<TokenUser>"] * (mode != "iam") + ["<AppUser>"] * (mode != "token") + ["<DefaultUser>"] * (engine_ == "redis")
    )
    for name, users in d.of_type("AWS::ElastiCache::UserGroup").items():
        if users.get("UserIds") != wanted or users.get("Engine") != engine_:
            yield f"{name} has {users.get('UserIds')} of {users.get('Engine')}, not {wanted} of {engine_}"
        if not _USER_ID.fullmatch(str(users.get("UserGroupId"))):
            yield f"{name}: its id is kept in lower case"
    for name, user in d.of_type("AWS::ElastiCache::User").items():
        if user.get("UserName") == "default" and user.get("AccessString", "").split() != ["off", "-@all"]:
            yield f"{name} could sign in"


@rule
def token(d: Deployment) -> Iterator[str]:
    """The token is generated, within what ElastiCache allows, only Secrets Manager shows it, and it is the user's."""
    secrets = d.of_type("AWS::SecretsManager::Secret")
    for name, user in d.of_type("AWS::ElastiCache::User").items():
        mode = user.get("AuthenticationMode", {})
        shown = {f"{{{{resolve:secretsmanager:<{secret}>:SecretString:password}}}}" for secret in secrets}
        if mode.get("Type") == "password" and not (mode.get("Passwords") and set(mode["Passwords"]) <= shown):
            yield f"{name}: its password is not a dynamic reference to the secret"
    for name, secret in secrets.items():
        generated = secret.get("GenerateSecretString", {})
        if "SecretString" in secret or generated.get("PasswordLength", 32) not in AUTH_LENGTHS:
            yield f"{name} is not generated with 16 to 128 characters"
        if generated.get("ExcludePunctuation") is not True:
            yield f"{name} may contain characters that ElastiCache refuses"
        names = [user["UserName"] for user in d.of_type("AWS::ElastiCache::User").values()]
        if generated.get("GenerateStringKey") != "password" or not (
            _username(generated) in names or d.parameters["AuthMode"] == "iam"
        ):
            yield f"{name} is not the user name and the password of a user"


def _username(generated: Mapping[str, Any]) -> Any:
    try:
        return msgspec.json.decode(generated.get("SecretStringTemplate", ""))["username"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return None


@rule
def users(d: Deployment) -> Iterator[str]:
    """A user of Redis has one name in two places, credentials of the kind that AuthMode says, and exactly the rights
    that the extension needs, on its own keys."""
    rights = {"on", f"~{d.parameters['KeyPrefix']}:*", *RIGHTS}
    for name, user in d.of_type("AWS::ElastiCache::User").items():
        if "NoPasswordRequired" in user or "Passwords" in user:
            yield f"{name}: AuthenticationMode alone says how it signs in"
        if user.get("Engine") != engine_of(d):
            yield f"{name} is of another engine than the cache"
        if not _USER_ID.fullmatch(str(user.get("UserId"))):
            yield f"{name}: ids are kept in lower case"
        if user.get("UserName") == "default":
            continue
        if user.get("UserId") != user.get("UserName"):
            yield f"{name}: by IAM, id and name are one"
        if user.get("AuthenticationMode", {}).get("Type") != ("iam" if name == "AppUser" else "password"):
            yield f"{name} does not sign in as it should"
        access = user.get("AccessString", "").split()
        if sorted(access) != sorted(rights) or access.index("-@all") > access.index("+@read"):
            yield f"{name} may do more or less than the extension does: {sorted(set(access) ^ rights)}"


PARAMETERS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(values)
    for name, values in {
        "cluster-enabled": "yes|no",
        "hash-max-listpack-value": r"[1-9]\d{3,4}",
        "maxmemory-policy": "volatile-(lru|lfu|random|ttl)|noeviction",
        "reserved-memory-percent": r"[1-9]\d?|0|100",
        "timeout": "0",
        "tcp-keepalive": r"\d{1,5}",
        "close-on-replica-write": "yes",
        "slowlog-log-slower-than": r"-1|\d{1,9}",
        "slowlog-max-len": r"\d{1,9}",
    }.items()
}
"""Parameters that every family of ElastiCache has, and the values of each that this extension can live with: keys
without an end are not evicted, connections do not end, none stays on a demoted primary, and hashes with a text of up to
a kilobyte are stored in half of the room."""


@rule
def cache_parameters(d: Deployment) -> Iterator[str]:
    """Settings of the server: known to ElastiCache, texts all, and none that loses sessions silently."""
    if group(d).get("CacheParameterGroupName") not in {f"<{n}>" for n in d.of_type("AWS::ElastiCache::ParameterGroup")}:
        yield "the group does not use the parameter group of the template"
    for name, parameters_ in d.of_type("AWS::ElastiCache::ParameterGroup").items():
        values = parameters_.get("Properties", {})
        for key, value in values.items():
            if key not in PARAMETERS:
                yield f"{name}: there is no parameter {key}, or none that ElastiCache lets be set"
            elif not isinstance(value, str) or not PARAMETERS[key].fullmatch(value):
                yield f"{name}: {key} cannot be {value!r}"
        for key in ("hash-max-listpack-value", "maxmemory-policy", "timeout", "close-on-replica-write"):
            if key not in values:
                yield f"{name}: {key} would be ElastiCache's default"


@rule
def logs(d: Deployment) -> Iterator[str]:
    """Slow log and engine log go to log groups of this template that forget after a while."""
    groups = d.of_type("AWS::Logs::LogGroup")
    for name, log_group in groups.items():
        if "RetentionInDays" not in log_group:
            yield f"{name} keeps everything for ever"
    seen = []
    for delivery in group(d).get("LogDeliveryConfigurations", []):
        seen.append(delivery.get("LogType"))
        target = delivery.get("DestinationDetails", {}).get("CloudWatchLogsDetails", {}).get("LogGroup")
        kind = delivery.get("DestinationType"), delivery.get("LogFormat")
        if target not in {f"<{name}>" for name in groups} or kind != ("cloudwatch-logs", "json"):
            yield f"{delivery.get('LogType')} is not delivered as JSON to a log group of this template"
    if sorted(seen) != ["engine-log", "slow-log"]:
        yield f"logs delivered: {seen}"


# Network


@rule
def network(d: Deployment) -> Iterator[str]:
    """The cache is in the given subnets and in a security group of the template."""
    subnets = d.of_type("AWS::ElastiCache::SubnetGroup")
    if group(d).get("CacheSubnetGroupName") not in {f"<{name}>" for name in subnets}:
        yield "without its subnet group the cache is in the default network"
    for name, subnet_group in subnets.items():
        if subnet_group.get("SubnetIds") != d.parameters["SubnetIds"]:
            yield f"{name} is not of the given subnets"
    if group(d).get("SecurityGroupIds") != ["<CacheSecurityGroup.GroupId>"]:
        yield "the cache is not in the one security group of the template that is its own"


@rule
def endpoints(d: Deployment) -> Iterator[str]:
    """If asked for: one for each service of AWS that the application calls, in its subnets, under AWS' own names."""
    wanted = {"elasticache", "sns", "monitoring"} | ({"secretsmanager"} if d.parameters["AuthMode"] != "iam" else set())
    found = set()
    for name, endpoint in d.of_type("AWS::EC2::VPCEndpoint").items():
        prefix, _, service = str(endpoint.get("ServiceName")).rpartition(".")
        found.add(service)
        if prefix != f"com.amazonaws.{REGION}" or endpoint.get("VpcEndpointType") != "Interface":
            yield f"{name} is no interface endpoint of this region"
        if endpoint.get("PrivateDnsEnabled") is not True:
            yield f"{name}: boto3 would go on calling the public address"
        if endpoint.get("SubnetIds") != d.parameters["SubnetIds"] or endpoint.get("VpcId") != d.parameters["VpcId"]:
            yield f"{name} is not in the given network"
        if endpoint.get("SecurityGroupIds") != ["<EndpointSecurityGroup.GroupId>"]:
            yield f"{name} is not in the security group that the application may call"
    if found != (wanted if d.parameters["VpcEndpoints"] == "yes" else set()):
        yield f"endpoints: {sorted(found)}"


@rule
def firewall(d: Deployment) -> Iterator[str]:
    """In: one port, from the groups of the application and, to the cache only, the bastion. Out: nothing."""
    application = [d.parameters[f"{which}SecurityGroupId"] for which in ("App", "Second", "Third")]
    ingress = d.of_type("AWS::EC2::SecurityGroupIngress")
    for name, security_group in d.of_type("AWS::EC2::SecurityGroup").items():
        is_cache = name == "CacheSecurityGroup"
        sources = sorted(filter(None, [*application, d.parameters["BastionSecurityGroupId"] if is_cache else ""]))
        port = group(d).get("Port") if is_cache else 443
        if "SecurityGroupIngress" in security_group:
            yield f"{name}: rules are resources of their own, so that they can come and go"
        out = security_group.get("SecurityGroupEgress")
        if not out or any(r.get("CidrIp") != "127.0.0.1/32" or set(r) & {"CidrIpv6"} for r in out):
            yield f"{name} lets what is in it call out"
        allowed = [entry for entry in ingress.values() if entry.get("GroupId") == f"<{name}.GroupId>"]
        if any((r.get("IpProtocol"), r.get("FromPort"), r.get("ToPort")) != ("tcp", port, port) for r in allowed):
            yield f"{name} opens another port than {port}"
        if sorted(str(entry.get("SourceSecurityGroupId")) for entry in allowed) != sources:
            yield f"{name}: not exactly the application and the bastion may connect"
    for name, resource in d.resources.items():
        if resource["Type"].startswith("AWS::EC2::SecurityGroup"):
            texts = [text for key, text in _pairs(resource) if key in ("Description", "GroupDescription")]
            if not all(_PLAIN.fullmatch(text) for text in texts):
                yield f"{name}: EC2 refuses this description"


_PLAIN = re.compile(r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*<>]{1,255}")  # <> stand for what is filled in


def _pairs(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str):
                yield key, value
            yield from _pairs(value)
    elif isinstance(node, list):
        for item in node:
            yield from _pairs(item)


# Alerts and rights


TOPIC_ACTIONS = {
    "AddPermission", "DeleteTopic", "GetTopicAttributes", "ListSubscriptionsByTopic", "Publish", "RemovePermission",
    "SetTopicAttributes", "Subscribe",
}  # fmt: skip
"""What SNS takes in the policy of a topic; it refuses a policy with anything else, ``sns:*`` included."""


@rule
def topics(d: Deployment) -> Iterator[str]:
    """Four topics, which the account and its alarms may publish to, one for ElastiCache's own events, and no encryption
    that would silence them."""
    declared = d.of_type("AWS::SNS::Topic")
    if set(declared) != {*TOPICS, EVENTS}:
        yield f"topics: {sorted(declared)}"
    for name, topic in declared.items():
        if str(topic.get("KmsMasterKeyId", "")).endswith("alias/aws/sns"):
            yield f"{name}: alarms cannot use the key of AWS"
        if topic.get("FifoTopic"):
            yield f"{name}: there is no mail from a FIFO topic"
    if "KmsMasterKeyId" in declared.get(EVENTS, {}) or group(d).get("NotificationTopicArn") != f"<{EVENTS}>":
        yield "ElastiCache's own events need a topic of ours that is not encrypted"
    told = {f"<{name}>" for name in TOPICS}
    policies = list(d.of_type("AWS::SNS::TopicPolicy").values())
    if {topic for policy in policies for topic in policy.get("Topics", [])} != {*told, f"<{EVENTS}>"}:
        yield "not every topic has the policy"
    for policy in policies:
        document = policy["PolicyDocument"]
        statements = {s.get("Sid"): s for s in document["Statement"]}
        owner, alarms = statements.get("Owner", {}), statements.get("Alarms", {})
        condition = owner.get("Condition", {}).get("StringEquals", {})
        if document.get("Version") != POLICY_VERSION or any(s.get("Effect") != "Allow" for s in document["Statement"]):
            yield "the policy allows nothing, or is read by the rules of another version"
        if set(owner.get("Resource", [])) != {*told, f"<{EVENTS}>"} or condition != {"AWS:SourceOwner": "<account>"}:
            yield "the account itself is locked out, or every account let in"
        if {action.removeprefix("sns:") for action in _listed(owner.get("Action", []))} != TOPIC_ACTIONS:
            yield "SNS refuses what it does not know in a policy, and what is missing locks the owner out"
        scope = alarms.get("Condition", {})
        if (
            alarms.get("Principal") != {"Service": "cloudwatch.amazonaws.com"}
            or alarms.get("Action") != "sns:Publish"
            or set(alarms.get("Resource", [])) != told
            or scope.get("StringEquals") != {"aws:SourceAccount": "<account>"}
            or not str(scope.get("ArnLike", {}).get("aws:SourceArn", "")).endswith(":<account>:alarm:*")
        ):
            yield "alarms of this account, and only they, must be able to publish"


@rule
def subscriptions(d: Deployment) -> Iterator[str]:
    """Mail for what an operator should look at, if there is an address."""
    entries = d.of_type("AWS::SNS::Subscription").values()
    if any(entry.get("Protocol") != "email" for entry in entries):
        yield "SNS sends mail by the protocol email"
    subscribed = {entry.get("TopicArn"): entry.get("Endpoint") for entry in entries}
    address = d.parameters["AlertEmail"]
    if subscribed != ({f"<{name}>": address for name in TOPICS[1:]} if address else {}):
        yield f"subscribed: {subscribed}"


@rule
def policy(d: Deployment) -> Iterator[str]:
    """The application may do what it does, on what is its own, and nothing else."""
    mode, key = d.parameters["AuthMode"], d.parameters["KmsKeyArn"]
    is_group = bool(d.of_type(GROUP))
    kind = "replicationgroup" if is_group else "serverlesscache"
    cache_arn = f"arn:aws:elasticache:{REGION}:<account>:{kind}:{group_id(d)}"
    wanted: dict[str, list[str]] = {
        "cloudwatch:PutMetricData": ["*"],
        "sns:Publish": [f"<{name}>" for name in TOPICS],
        f"elasticache:Describe{'ReplicationGroups' if is_group else 'ServerlessCaches'}": [cache_arn],
    }
    if mode != "iam":
        wanted["secretsmanager:GetSecretValue"] = ["<AuthToken>"]
    if mode != "token":
        wanted["elasticache:Connect"] = [cache_arn, "<AppUser.Arn>"]
    if key:
        wanted |= {"kms:Decrypt": [key], "kms:GenerateDataKey*": [key]}
    granted: dict[str, list[str]] = {}
    roles = list(filter(None, [d.parameters["AppRoleName"]]))
    for managed in d.of_type("AWS::IAM::ManagedPolicy").values():
        if managed.get("Roles", []) != roles:
            yield f"attached to {managed.get('Roles')}, not to {roles}"
        if managed["PolicyDocument"].get("Version") != POLICY_VERSION:
            yield "the policy is read by the rules of another version"
        for statement in managed["PolicyDocument"]["Statement"]:
            for action in _listed(statement.get("Action", "NotAction")) if statement.get("Effect") == "Allow" else []:
                granted[action] = _listed(statement.get("Resource"))
            limit = statement.get("Condition", {}).get("StringEquals", {}).get("cloudwatch:namespace")
            if statement.get("Resource") == "*" and limit != catalogue.NAMESPACE:
                yield f"{statement.get('Sid')}: on everything, and not for the namespace of the extension only"
    for action in wanted.keys() | granted.keys():
        if sorted(granted.get(action, [])) != sorted(wanted.get(action, [])):
            yield f"{action} on {granted.get(action, 'nothing')}, not on {wanted.get(action, 'nothing')}"


def _mentioned(value: Any) -> set[str]:
    """The names that ``Ref`` and ``Sub`` in a value mention."""
    found = set()
    for leaf in scope(value):
        found |= {str(leaf), *re.findall(r"\$\{([^}]*)\}", str(leaf))}
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@rule
def outputs(d: Deployment) -> Iterator[str]:
    """The endpoints that this topology has, never a node's, and no secret."""
    sharded, replicas = is_cluster(d), int(d.parameters["ReplicasPerShard"]) > 0
    name = group_id(d)[1:-1]
    wanted = {
        "RedisUrl": None if sharded else f"rediss://<{name}.PrimaryEndPoint.Address>:<{name}.PrimaryEndPoint.Port>/0",
        "ReplicaUrl": f"rediss://<{name}.ReaderEndPoint.Address>:<{name}.ReaderEndPoint.Port>/0"
        if replicas and not sharded
        else None,
        "ConfigurationEndpoint": f"<{name}.ConfigurationEndPoint.Address>:<{name}.ConfigurationEndPoint.Port>"
        if sharded
        else None,
        "ReplicationGroupId": group_id(d),
        "TokenSecretArn": "<AuthToken>" if d.parameters["AuthMode"] != "iam" else None,
        "IamUser": "<AppUser>" if d.parameters["AuthMode"] != "token" else None,
        **{f"{topic}Arn": f"<{topic}>" for topic in (*TOPICS, EVENTS)},
    }
    for output, value in wanted.items():
        if d.outputs.get(output) != value:
            yield f"{output} is {d.outputs.get(output)}, not {value}"
    for output, value in d.outputs.items():
        if "resolve:" in str(value):
            yield f"{output} shows a secret"
