"""What must hold of the template and cfn-lint does not look at. Each rule looks at one deployment and speaks in words.

The rules on alarms and on the dashboard are in modules of their own; :func:`violations` applies all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from itertools import product
from typing import Any

import msgspec
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from flask_langpont_session.metrics import catalogue
from tests.infra.template import REGION, Deployment, scope

Rule = Callable[[Deployment], Iterator[str]]
RULES: dict[str, Rule] = {}

GROUP = "AWS::ElastiCache::ReplicationGroup"
TOPICS = ("InfoTopic", "WarningTopic", "CriticalTopic", "EmergencyTopic")
SECTIONS = {
    "AWSTemplateFormatVersion", "Description", "Parameters", "Rules", "Mappings", "Conditions", "Resources", "Outputs",
}  # fmt: skip
NAMED = {
    "ReplicationGroupId", "CacheSubnetGroupName", "CacheParameterGroupName", "GroupName", "AlarmName", "TopicName",
    "LogGroupName", "DashboardName", "UserId", "ManagedPolicyName", "Name",
}  # fmt: skip
"""Properties that give a resource a name that must be its own in the account."""
AUTH_LENGTHS = range(16, 129)
NIGHT = (17 * 60, 20 * 60)
"""Minutes after midnight UTC between which Japan sleeps: backups and maintenance belong there."""


def rule(check: Rule) -> Rule:
    """Add a rule under its function's name."""
    RULES[check.__name__] = check
    return check


def violations(deployment: Deployment) -> list[tuple[str, str]]:
    """(rule, what is wrong) for everything that is wrong."""
    return [(name, text) for name, check in RULES.items() for text in check(deployment)]


def resource_type(resource: Any) -> str:
    """The type of a resource as written; empty for what is none."""
    return str(resource.get("Type", "")) if isinstance(resource, dict) else ""


def resource_properties(resource: Any) -> dict[str, Any]:
    """The properties of a resource as written."""
    properties = resource.get("Properties", {}) if isinstance(resource, dict) else {}
    return properties if isinstance(properties, dict) else {}


def group(deployment: Deployment) -> dict[str, Any]:
    """The properties of the one replication group; empty if it is missing, which `form` reports."""
    return next(iter(deployment.of_type(GROUP).values()), {})


def group_id(deployment: Deployment) -> str:
    """What ``Ref`` of the replication group yields."""
    name = next(iter(deployment.of_type(GROUP)), "Cache")
    return deployment.physical.get(name, f"<{name}>")


def nodes(deployment: Deployment) -> list[str]:
    """The ids of the nodes that the group will have: these are the values of the dimension CacheClusterId."""
    shards = int(deployment.parameters["NumShards"])
    members = range(1, int(deployment.parameters["ReplicasPerShard"]) + 2)
    if shards == 1:
        return [f"{group_id(deployment)}-{node:03}" for node in members]
    return [f"{group_id(deployment)}-{s:04}-{n:03}" for s, n in product(range(1, shards + 1), members)]


@cache
def _bundled(name: str) -> Any:
    folder = resources.files("cfnlint.data.schemas.extensions.aws_elasticache_cachecluster")
    return msgspec.json.decode((folder / name).read_bytes())


@cache
def node_types() -> frozenset[str]:
    """The node types of the region."""
    return frozenset(_bundled("cachenodetype_enum.json")[REGION]["enum"])


@cache
def engine_versions(engine: str) -> frozenset[str]:
    """The versions of an engine that ElastiCache offers; empty if there is no such engine."""
    for case in _bundled("engine_version.json")["allOf"]:
        if case["if"]["properties"]["Engine"].get("const") == engine:
            return frozenset(case["then"]["properties"]["EngineVersion"]["enum"])
    return frozenset()


# The document


@rule
def form(d: Deployment) -> Iterator[str]:
    """A template, and nothing that needs a macro."""
    for section in set(d.template) - SECTIONS:
        yield f"{section} is no section that this template may have"
    for name, resource in d.template.get("Resources", {}).items():
        if not resource_type(resource).startswith("AWS::"):
            yield f"{name} is not a resource with a type"
    if len(d.of_type(GROUP)) != 1:
        yield "there must be exactly one replication group"


@rule
def references(d: Deployment) -> Iterator[str]:
    """Every reference leads to something that exists in this environment."""
    yield from d.dangling


@rule
def schema(d: Deployment) -> Iterator[str]:
    """Properties exist, and those that are required are there."""
    for name, resource in d.resources.items():
        described = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, resource["Type"]).schema
        yield from _properties(name, resource.get("Properties", {}), described, described)


def _properties(where: str, value: Any, node: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in node:
        node = root["definitions"][node["$ref"].rsplit("/", 1)[1]]
    if isinstance(value, list):
        for item in value:
            yield from _properties(where, item, node.get("items", {}), root)
    known = node.get("properties")
    if not isinstance(value, dict) or known is None:
        return
    for key in value:
        if key in known:
            yield from _properties(f"{where}.{key}", value[key], known[key], root)
        elif node.get("additionalProperties") is False:
            yield f"{where} has no property {key}"
    for key in set(node.get("required", ())) - set(value):
        yield f"{where} lacks {key}"


@rule
def literals(d: Deployment) -> Iterator[str]:
    """No account, region, partition or token is written down: the same text must do for every account."""
    for leaf in scope({section: d.template.get(section) for section in ("Mappings", "Resources", "Outputs")}):
        if re.search(r"\b\d{12}\b", str(leaf)):
            yield f"an account id is written down: {leaf}"
        if re.search(r"\b(ap|us|eu|ca|sa|me|af)-[a-z]+-\d\b", str(leaf)):
            yield f"a region is written down: {leaf}"
        if re.search(r"arn:aws[a-z-]*:", str(leaf)):
            yield f"a partition is written down: {leaf}"


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


# The cache


@rule
def engine(d: Deployment) -> Iterator[str]:
    """Engine, version and parameter family exist and go together."""
    name, version = group(d).get("Engine", ""), str(group(d).get("EngineVersion", ""))
    if version not in engine_versions(name) or name == "memcached":
        yield f"there is no {name} {version}"
    for parameters_ in d.of_type("AWS::ElastiCache::ParameterGroup").values():
        if parameters_.get("CacheParameterGroupFamily") != f"{name}{version.split('.')[0]}":
            yield f"family {parameters_.get('CacheParameterGroupFamily')} is not of {name} {version}"


@rule
def node_type(d: Deployment) -> Iterator[str]:
    """The node type exists in the region and is not of an old generation; data tiering only where there is a disk."""
    type_ = group(d).get("CacheNodeType", "")
    if type_ not in node_types() or re.match(r"cache\.(t1|t2|m1|m2|m3|m4|r3|r4|c1)\.", type_):
        yield f"node type {type_}"
    if "DataTieringEnabled" in group(d) and not type_.startswith("cache.r6gd."):
        yield f"data tiering on {type_}"


@rule
def topology(d: Deployment) -> Iterator[str]:
    """Shards and replicas are said in the one way that works for both cluster modes, and the mode agrees."""
    g, sharded = group(d), int(d.parameters["NumShards"]) > 1
    if "NumCacheClusters" in g:
        yield "NumCacheClusters is ignored with shards"
    for key, parameter in (("NumNodeGroups", "NumShards"), ("ReplicasPerNodeGroup", "ReplicasPerShard")):
        if g.get(key) != int(d.parameters[parameter]):
            yield f"{key} is not {parameter}"
    if g.get("ClusterMode") != ("enabled" if sharded else "disabled"):
        yield f"ClusterMode {g.get('ClusterMode')} with {d.parameters['NumShards']} shards"
    for parameters_ in d.of_type("AWS::ElastiCache::ParameterGroup").values():
        if parameters_.get("Properties", {}).get("cluster-enabled") != ("yes" if sharded else "no"):
            yield "cluster-enabled does not follow the number of shards"
    if "AWS::ElastiCache::CacheCluster" in {resource["Type"] for resource in d.resources.values()}:
        yield "a lone node has neither token nor encryption at rest; use the group with no replica"


@rule
def failover(d: Deployment) -> Iterator[str]:
    """Failover where there is a replica, and always in cluster mode; several zones where there is a replica."""
    replicas, sharded = int(d.parameters["ReplicasPerShard"]), int(d.parameters["NumShards"]) > 1
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
    """Either a token or users, as the parameter says."""
    ways = {"AuthToken", "UserGroupIds"} & set(group(d))
    if ways != ({"AuthToken"} if d.parameters["AuthMode"] == "token" else {"UserGroupIds"}):
        yield f"{sorted(ways)} with AuthMode {d.parameters['AuthMode']}"


@rule
def token(d: Deployment) -> Iterator[str]:
    """The token is generated, within what ElastiCache allows, and only Secrets Manager shows it."""
    secrets = d.of_type("AWS::SecretsManager::Secret")
    references_ = {f"{{{{resolve:secretsmanager:<{name}>}}}}" for name in secrets}
    if "AuthToken" in group(d) and group(d)["AuthToken"] not in references_:
        yield "AuthToken is not a dynamic reference to the secret"
    for name, secret in secrets.items():
        generated = secret.get("GenerateSecretString", {})
        if "SecretString" in secret or generated.get("PasswordLength", 32) not in AUTH_LENGTHS:
            yield f"{name} is not generated with 16 to 128 characters"
        if generated.get("ExcludePunctuation") is not True:
            yield f"{name} may contain characters that ElastiCache refuses"


@rule
def iam_user(d: Deployment) -> Iterator[str]:
    """An IAM user has one name in two places, is in the group, and may touch its own keys only."""
    users = d.of_type("AWS::ElastiCache::User")
    for name, user in users.items():
        if user.get("UserId") != user.get("UserName") or not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", user["UserId"]):
            yield f"{name}: by IAM, id and name are one, in lower case"
        if user.get("AuthenticationMode") != {"Type": "iam"}:
            yield f"{name} does not sign in by IAM"
        access = user.get("AccessString", "").split()
        if access[:1] != ["on"] or "-@dangerous" not in access or f"~{d.parameters['KeyPrefix']}:*" not in access:
            yield f"{name} may do more or less than the extension does"
        if not {"+info", "+time"} <= set(access):
            yield f"{name} may not ask the server for its identity and its time"
        if {"~*", "allkeys", "+@all", "allcommands"} & set(access):
            yield f"{name} may do everything"
    for name, users_ in d.of_type("AWS::ElastiCache::UserGroup").items():
        if users_.get("UserIds") != [f"<{user}>" for user in users] or users_.get("Engine") != group(d)["Engine"]:
            yield f"{name} is not a group of the user on the cache's engine"


@rule
def windows(d: Deployment) -> Iterator[str]:
    """Backup, then at least half an hour later maintenance, at night in Japan."""
    hours = r"([01]\d|2[0-3]):([0-5]\d)"
    day = r"(?:mon|tue|wed|thu|fri|sat|sun):"
    spans = []
    for key, pattern in (
        ("SnapshotWindow", f"{hours}-{hours}"),
        ("PreferredMaintenanceWindow", f"{day}{hours}-{day}{hours}"),
    ):
        found = re.fullmatch(pattern, str(group(d).get(key, "")))
        if found is None:
            yield f"{key} {group(d).get(key)} is no window"
            continue
        h1, m1, h2, m2 = map(int, found.groups())
        begin, end = h1 * 60 + m1, h2 * 60 + m2
        spans.append((begin, end))
        if end - begin < 60 or begin < NIGHT[0] or end > NIGHT[1]:
            yield f"{key} {group(d)[key]} is too short or not between 17:00 and 20:00 UTC"
    if len(spans) == 2 and not (spans[0][1] + 30 <= spans[1][0] or spans[1][1] + 30 <= spans[0][0]):
        yield "backup and maintenance are less than half an hour apart"


@rule
def cache_parameters(d: Deployment) -> Iterator[str]:
    """Settings of the server: texts all, and none that loses sessions silently."""
    if group(d).get("CacheParameterGroupName") not in {f"<{n}>" for n in d.of_type("AWS::ElastiCache::ParameterGroup")}:
        yield "the group does not use the parameter group of the template"
    for name, parameters_ in d.of_type("AWS::ElastiCache::ParameterGroup").items():
        values = parameters_.get("Properties", {})
        for key, value in values.items():
            if not isinstance(value, str):
                yield f"{name}: {key} must be a text"
        if not re.fullmatch(r"volatile-.*|noeviction", str(values.get("maxmemory-policy"))):
            yield f"{name}: maxmemory-policy {values.get('maxmemory-policy')} evicts keys that have no end"
        if str(values.get("timeout")) != "0" or values.get("close-on-replica-write") != "yes":
            yield f"{name}: connections end when they should not, or stay on a demoted primary"


@rule
def logs(d: Deployment) -> Iterator[str]:
    """Slow log and engine log go to log groups of this template that forget after a while."""
    groups = d.of_type("AWS::Logs::LogGroup")
    for name, log_group in groups.items():
        if not log_group.get("RetentionInDays"):
            yield f"{name} keeps everything for ever"
    seen = []
    for delivery in group(d).get("LogDeliveryConfigurations", []):
        seen.append(delivery.get("LogType"))
        target = delivery.get("DestinationDetails", {}).get("CloudWatchLogsDetails", {}).get("LogGroup")
        if target not in {f"<{name}>" for name in groups} or delivery.get("LogFormat") != "json":
            yield f"{delivery.get('LogType')} is not delivered as JSON to a log group of this template"
    if sorted(seen) != ["engine-log", "slow-log"]:
        yield f"logs delivered: {seen}"


# Network


@rule
def network(d: Deployment) -> Iterator[str]:
    """The cache is in the given subnets and in the security group of the template."""
    subnets = d.of_type("AWS::ElastiCache::SubnetGroup")
    if group(d).get("CacheSubnetGroupName") not in {f"<{name}>" for name in subnets}:
        yield "without its subnet group the cache is in the default network"
    for name, subnet_group in subnets.items():
        if subnet_group.get("SubnetIds") != d.parameters["SubnetIds"]:
            yield f"{name} is not of the given subnets"
    own = [f"<{name}.GroupId>" for name in d.of_type("AWS::EC2::SecurityGroup")]
    if group(d).get("SecurityGroupIds") != own or len(own) != 1:
        yield "the cache is not in the one security group of the template"


@rule
def firewall(d: Deployment) -> Iterator[str]:
    """In: the port of the cache, from the application and, if given, the bastion. Out: nothing."""
    sources = [d.parameters["AppSecurityGroupId"], *filter(None, [d.parameters["BastionSecurityGroupId"]])]
    for name, security_group in d.of_type("AWS::EC2::SecurityGroup").items():
        if "SecurityGroupIngress" in security_group:
            yield f"{name}: rules are resources of their own, so that they can come and go"
        out = security_group.get("SecurityGroupEgress")
        if not out or any(r.get("CidrIp") != "127.0.0.1/32" or set(r) & {"CidrIpv6"} for r in out):
            yield f"{name} lets the cache call out"
    ingress = d.of_type("AWS::EC2::SecurityGroupIngress")
    for name, allowed in ingress.items():
        ports = (allowed.get("IpProtocol"), allowed.get("FromPort"), allowed.get("ToPort"))
        if ports != ("tcp", group(d).get("Port"), group(d).get("Port")):
            yield f"{name} opens another port than the cache's"
    if sorted(str(allowed.get("SourceSecurityGroupId")) for allowed in ingress.values()) != sorted(sources):
        yield "not exactly the application and the bastion may connect"


# Alerts and rights


@rule
def topics(d: Deployment) -> Iterator[str]:
    """Four topics, which the account and its alarms may publish to, and no encryption that would silence them."""
    declared = d.of_type("AWS::SNS::Topic")
    if set(declared) != set(TOPICS):
        yield f"topics: {sorted(declared)}"
    for name, topic in declared.items():
        if str(topic.get("KmsMasterKeyId", "")).endswith("alias/aws/sns"):
            yield f"{name}: alarms cannot use the key of AWS"
    wanted = {f"<{name}>" for name in declared}
    policies = list(d.of_type("AWS::SNS::TopicPolicy").values())
    if {topic for policy in policies for topic in policy.get("Topics", [])} != wanted:
        yield "not every topic has the policy"
    for policy in policies:
        statements = {s.get("Sid"): s for s in policy["PolicyDocument"]["Statement"]}
        owner, alarms = statements.get("Owner", {}), statements.get("Alarms", {})
        condition = owner.get("Condition", {}).get("StringEquals", {})
        if set(owner.get("Resource", [])) != wanted or condition != {"AWS:SourceOwner": "<account>"}:
            yield "the account itself is locked out, or every account let in"
        scope = alarms.get("Condition", {})
        if (
            alarms.get("Principal") != {"Service": "cloudwatch.amazonaws.com"}
            or set(alarms.get("Resource", [])) != wanted
            or scope.get("StringEquals") != {"aws:SourceAccount": "<account>"}
            or not str(scope.get("ArnLike", {}).get("aws:SourceArn", "")).endswith(":<account>:alarm:*")
        ):
            yield "alarms of this account, and only they, must be able to publish"
    events = group(d).get("NotificationTopicArn")
    encrypted = bool(d.parameters["KmsKeyArn"])
    if (events is None) is not encrypted or not (events is None or events in wanted):
        yield "ElastiCache's own events need a topic of ours that is not encrypted"


@rule
def subscriptions(d: Deployment) -> Iterator[str]:
    """Mail for what an operator should look at, if there is an address."""
    subscribed = {s.get("TopicArn"): s.get("Endpoint") for s in d.of_type("AWS::SNS::Subscription").values()}
    address = d.parameters["AlertEmail"]
    if subscribed != ({f"<{name}>": address for name in TOPICS[1:]} if address else {}):
        yield f"subscribed: {subscribed}"


@rule
def policy(d: Deployment) -> Iterator[str]:
    """The application may do what it does, on what is its own, and nothing else."""
    token_mode, key = d.parameters["AuthMode"] == "token", d.parameters["KmsKeyArn"]
    cache_arn = f"arn:aws:elasticache:{REGION}:<account>:replicationgroup:{group_id(d)}"
    wanted: dict[str, list[str]] = {
        "cloudwatch:PutMetricData": ["*"],
        "sns:Publish": [f"<{name}>" for name in TOPICS],
        "elasticache:DescribeReplicationGroups": [cache_arn],
    }
    if token_mode:
        wanted["secretsmanager:GetSecretValue"] = ["<AuthToken>"]
    else:
        wanted["elasticache:Connect"] = [cache_arn, "<AppUser.Arn>"]
    if key:
        wanted |= {"kms:Decrypt": [key], "kms:GenerateDataKey*": [key]}
    granted: dict[str, list[str]] = {}
    for managed in d.of_type("AWS::IAM::ManagedPolicy").values():
        for statement in managed["PolicyDocument"]["Statement"]:
            for action in _listed(statement.get("Action", "NotAction")):
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
    sharded, replicas = int(d.parameters["NumShards"]) > 1, int(d.parameters["ReplicasPerShard"]) > 0
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
        "TokenSecretArn": "<AuthToken>" if d.parameters["AuthMode"] == "token" else None,
        "IamUser": "<AppUser>" if d.parameters["AuthMode"] == "iam" else None,
        **{f"{topic}Arn": f"<{topic}>" for topic in TOPICS},
    }
    for output, value in wanted.items():
        if d.outputs.get(output) != value:
            yield f"{output} is {d.outputs.get(output)}, not {value}"
    for output, value in d.outputs.items():
        if "resolve:" in str(value):
            yield f"{output} shows a secret"
