"""Mistakes that look right: each is one change of the good template, and the rules that must see it.

Many come from a plan that was never deployed; cfn-lint says nothing to most of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Template = dict[str, Any]
Change = Callable[[Template], object]


@dataclass(frozen=True)
class Bug:
    """One mistake.

    :param what: in words.
    :param rules: those that must report it, and no other.
    :param change: makes it.
    :param parameters: with which it shows, over production's.
    """

    what: str
    rules: frozenset[str]
    change: Change
    parameters: Mapping[str, Any] = field(default_factory=dict)


def ref(name: str) -> dict[str, str]:
    return {"Ref": name}


def props(template: Template, name: str) -> dict[str, Any]:
    found = template["Resources"][name]["Properties"]
    assert isinstance(found, dict)
    return found


def put(name: str, **values: Any) -> Change:
    """Set properties of one resource."""
    return lambda t: props(t, name).update(values)


def drop(name: str, *keys: str) -> Change:
    """Remove properties of one resource."""
    return lambda t: [props(t, name).pop(key) for key in keys]


def rename(name: str, old: str, new: str) -> Change:
    """Give a property another name."""
    return lambda t: props(t, name).update({new: props(t, name).pop(old)})


def remove(name: str) -> Change:
    """Remove a resource."""
    return lambda t: t["Resources"].pop(name)


def add(name: str, type_: str, **values: Any) -> Change:
    """Add a resource."""
    return lambda t: t["Resources"].update({name: {"Type": type_, "Properties": values}})


def every(metric: str, **values: Any) -> Change:
    """Set properties of all alarms on one metric."""

    def change(template: Template) -> None:
        alarms = [r["Properties"] for r in template["Resources"].values() if r["Type"] == "AWS::CloudWatch::Alarm"]
        hit = [alarm for alarm in alarms if alarm.get("MetricName") == metric]
        assert hit
        for alarm in hit:
            alarm.update(values)

    return change


def parameter_group(**values: Any) -> Change:
    return lambda t: props(t, "CacheParameters")["Properties"].update(
        {k.replace("_", "-"): v for k, v in values.items()}
    )


def both(*changes: Change) -> Change:
    return lambda t: [change(t) for change in changes]


def dashboard(old: str, new: str) -> Change:
    """Replace a piece of the dashboard's text, which must be there."""

    def change(template: Template) -> None:
        body = props(template, "Dashboard")["DashboardBody"]["Fn::Sub"]
        assert old in body[0], old
        body[0] = body[0].replace(old, new, 1)

    return change


def generated(**values: Any) -> Change:
    """Change how the secret is generated."""
    return lambda t: props(t, "AuthToken")["GenerateSecretString"].update(values)


def piece(name: str, text: str, old: str, new: str) -> Change:
    """Replace a piece of a property that is a text, which must be there."""

    def change(template: Template) -> None:
        found = props(template, name)[text]
        assert old in found["Fn::Sub"]
        found["Fn::Sub"] = found["Fn::Sub"].replace(old, new, 1)

    return change


def rights(user: str, old: str, new: str) -> Change:
    """Replace a right of a user, which it must have."""
    return piece(user, "AccessString", old, new)


def statement(resource: str, sid: str, **values: Any) -> Change:
    """Change one statement of a policy; a value of None removes the key."""

    def change(template: Template) -> None:
        for entry in props(template, resource)["PolicyDocument"]["Statement"]:
            for candidate in entry.get("Fn::If", [entry]):
                if isinstance(candidate, dict) and candidate.get("Sid") == sid:
                    candidate.update(values)
                    for key in [key for key, value in values.items() if value is None]:
                        del candidate[key]
                    return
        raise AssertionError(sid)

    return change


def output(name: str, value: Any) -> Change:
    return lambda t: t["Outputs"].setdefault(name, {}).update(Value=value)


def default(parameter: str, **values: Any) -> Change:
    return lambda t: t["Parameters"].setdefault(parameter, {"Type": "String"}).update(values)


HEARTBEAT = ". docs/operations.md#heartbeat"
ROWS = '"Environment", "${Environment}", "Service", "${ServiceName}"'
KEY = "arn:aws:kms:ap-northeast-1:<account>:key/0a1b"
SHARDED = {"ClusterMode": "enabled", "NumShards": 3}
IAM = {"AuthMode": "iam"}
RIGHTS = (
    "-@all +@read +@write +@connection +@transaction +@scripting -@dangerous +info +time +cluster|slots +cluster|info"
)


def bug(what: str, rules: str, change: Change, **parameters: Any) -> Bug:
    return Bug(what, frozenset(rules.split()), change, parameters)


BUGS = [
    # The document
    bug("a block beside Resources", "form", lambda t: t.update(ElastiCacheReplicationGroup={"Engine": "redis"})),
    bug("alarms as a list", "form", lambda t: t["Resources"].update(ElastiCacheAlarms=[{"AlarmName": "cpu"}])),
    bug("a resource without a type", "form", lambda t: t["Resources"].update(RedisSubnetGroup={"SubnetIds": []})),
    bug("a transform", "form", lambda t: t.update(Transform="AWS::LanguageExtensions")),
    bug("a loop", "form", lambda t: t["Resources"].update({"Fn::ForEach::Nodes": ["N", ["1"], {}]})),
    bug(
        "a second group",
        "form retention replacement",
        add("Second", "AWS::ElastiCache::ReplicationGroup", ReplicationGroupDescription="x"),
    ),
    bug("subnets that are not declared", "references network", put("CacheSubnets", SubnetIds=[ref("PrivateSubnet1")])),
    bug("!Self", "references firewall", put("CacheFromApp", SourceSecurityGroupId={"Fn::Self": ""})),
    bug(
        "a reference to what only IAM mode has",
        "references authentication",
        put("Cache", UserGroupIds=[ref("AppUser")]),
    ),
    bug("Description", "schema", rename("Cache", "ReplicationGroupDescription", "Description")),
    bug("NodeType", "schema node_type", rename("Cache", "CacheNodeType", "NodeType")),
    bug(
        "ParameterGroupName",
        "schema cache_parameters",
        rename("Cache", "CacheParameterGroupName", "ParameterGroupName"),
    ),
    bug(
        "a log group in the wrong place",
        "schema logs",
        lambda t: props(t, "Cache")["LogDeliveryConfigurations"][0].update(
            DestinationDetails={"LogGroup": ref("SlowLog")}
        ),
    ),
    bug("an account id", "literals", put("Heartbeat", AlarmDescription="of 0" + "12345678901" + HEARTBEAT)),
    bug(
        "a partition and a region",
        "literals",
        put("Heartbeat", AlarmDescription="arn:aws:sns:ap-northeast-1::x" + HEARTBEAT),
    ),
    bug("a parameter that takes anything", "parameters", default("Free")),
    bug(
        "a token as a parameter",
        "parameters authentication replacement",
        both(default("RedisAuthToken", Default="x" * 20), put("Cache", AuthToken=ref("RedisAuthToken"))),
    ),
    bug("a fixed group id", "physical_names replacement", put("Cache", ReplicationGroupId="langpont-session-cluster")),
    bug(
        "a malformed group id",
        "physical_names replacement",
        put("Cache", ReplicationGroupId={"Fn::Sub": "${AWS::StackName}--Bad-"}),
    ),
    bug("a fixed security group name", "physical_names", put("CacheSecurityGroup", GroupName="langpont-redis-sg")),
    bug(
        "a fixed subnet group name",
        "physical_names",
        put("CacheSubnets", CacheSubnetGroupName="langpont-redis-subnets"),
    ),
    bug("a fixed alarm name", "physical_names", put("Heartbeat", AlarmName="langpont-redis-cpu-high")),
    bug("a fixed topic name", "physical_names", put("InfoTopic", TopicName="langpont-info-alerts")),
    bug("a group that goes without a snapshot", "retention", lambda t: t["Resources"]["Cache"].pop("DeletionPolicy")),
    bug("a secret that goes", "retention", lambda t: t["Resources"]["AuthToken"].update(UpdateReplacePolicy="Delete")),
    bug("production without backups", "retention", lambda t: None, SnapshotRetentionDays=0),
    # The cache
    bug("engine version 99", "engine", put("Cache", EngineVersion="99")),
    bug("a patch version", "engine", put("Cache", EngineVersion="8.1.0")),
    bug("redis 7.4", "engine user_group users", put("Cache", Engine="redis", EngineVersion="7.4")),
    bug("a family of another engine", "engine", put("CacheParameters", CacheParameterGroupFamily="redis7")),
    bug("memcached", "engine user_group users", put("Cache", Engine="memcached", EngineVersion="1.6.22")),
    bug("a node type that does not exist", "node_type", put("Cache", CacheNodeType="cache.t9.huge")),
    bug("an old node type", "node_type", put("Cache", CacheNodeType="cache.t2.micro")),
    bug("data tiering without a disk", "node_type replacement", put("Cache", DataTieringEnabled=False)),
    bug(
        "three nodes under the name of cluster mode",
        "topology",
        both(drop("Cache", "NumNodeGroups", "ReplicasPerNodeGroup"), put("Cache", NumCacheClusters=3)),
    ),
    bug("NumCacheClusters beside shards", "topology", put("Cache", NumCacheClusters=3)),
    bug("a fixed number of replicas", "topology", put("Cache", ReplicasPerNodeGroup=2), ReplicasPerShard=1),
    bug("shards without cluster mode", "topology", put("Cache", ClusterMode="disabled"), **SHARDED),
    bug("shards and a parameter group without them", "topology", parameter_group(cluster_enabled="no"), **SHARDED),
    bug("cluster mode with one shard", "topology", parameter_group(cluster_enabled="yes")),
    bug(
        "a lone node for development",
        "topology schema",
        add(
            "Dev",
            "AWS::ElastiCache::CacheCluster",
            CacheNodeType="cache.t3.micro",
            Engine="redis",
            NumCacheNodes=1,
            AuthToken="x",
            AtRestEncryptionEnabled=False,
        ),
    ),
    bug(
        "a lone Valkey node",
        "topology",
        add("Dev", "AWS::ElastiCache::CacheCluster", CacheNodeType="cache.t3.micro", Engine="valkey", NumCacheNodes=1),
    ),
    bug(
        "two nodes of Redis without a group",
        "topology",
        add("Dev", "AWS::ElastiCache::CacheCluster", CacheNodeType="cache.t3.micro", Engine="redis", NumCacheNodes=2),
    ),
    bug("failover without a replica", "failover", put("Cache", AutomaticFailoverEnabled=True), ReplicasPerShard=0),
    bug("several zones for one node", "failover", put("Cache", MultiAZEnabled=True), ReplicasPerShard=0),
    bug("several zones without failover", "failover", put("Cache", AutomaticFailoverEnabled=False)),
    bug(
        "cluster mode without failover",
        "failover",
        put("Cache", AutomaticFailoverEnabled=False),
        ReplicasPerShard=0,
        **SHARDED,
    ),
    bug("no encryption on the way, with a token", "encryption", put("Cache", TransitEncryptionEnabled=False)),
    bug("encryption on the way is not said", "encryption", drop("Cache", "TransitEncryptionEnabled")),
    bug("the mode is not said", "encryption", drop("Cache", "TransitEncryptionMode")),
    bug("plain connections are taken too", "encryption", put("Cache", TransitEncryptionMode="preferred")),
    bug("no encryption at rest", "encryption", put("Cache", AtRestEncryptionEnabled=False)),
    bug("token and users", "authentication replacement", put("Cache", AuthToken="a" * 32)),
    bug("other users", "authentication", put("Cache", UserGroupIds=["users"])),
    bug("neither token nor users", "authentication", drop("Cache", "UserGroupIds")),
    bug(
        "the token in the template",
        "token",
        put("TokenUser", AuthenticationMode={"Type": "password", "Passwords": ["a" * 32]}),
    ),
    bug("a token of eight characters", "token", generated(PasswordLength=8)),
    bug("a token with any punctuation", "token", generated(ExcludePunctuation=False)),
    bug("a secret that is written in the template", "token", put("AuthToken", SecretString="hunter2")),
    bug("id and name differ", "users", put("AppUser", UserName="app"), **IAM),
    bug("a user who may do everything", "users", put("AppUser", AccessString="on ~* +@all"), **IAM),
    bug(
        "a user without its keys",
        "users",
        put("AppUser", AccessString=f"on ~session:* {RIGHTS}"),
        KeyPrefix="shop",
        **IAM,
    ),
    bug("a user who may not ask the time", "users", rights("AppUser", "+time", ""), **IAM),
    bug("a user with a password", "users token", put("AppUser", AuthenticationMode={"Type": "password"}), **IAM),
    bug("a group without the user", "user_group", put("AppUsers", UserIds=[]), **IAM),
    bug("a group of users on Redis OSS", "user_group", put("AppUsers", Engine="valkey"), Engine="redis-7.1", **IAM),
    bug("hours without minutes", "windows", put("Cache", SnapshotWindow="3-5")),
    bug("a day for a window", "windows", put("Cache", PreferredMaintenanceWindow="sunday")),
    bug(
        "backup and maintenance in Japan's office hours",
        "windows",
        put("Cache", SnapshotWindow="03:00-05:00", PreferredMaintenanceWindow="sun:05:00-sun:07:00"),
    ),
    bug("maintenance during the backup", "windows", put("Cache", PreferredMaintenanceWindow="sat:17:30-sat:18:30")),
    bug(
        "a parameter group that is not declared",
        "cache_parameters",
        put("Cache", CacheParameterGroupName="langpont-redis"),
    ),
    bug("eviction of any key", "cache_parameters", parameter_group(maxmemory_policy="allkeys-lru")),
    bug("a number for a text", "cache_parameters", parameter_group(tcp_keepalive=60)),
    bug("twice the room for small hashes", "cache_parameters", parameter_group(hash_max_listpack_value="64")),
    bug("connections that the server closes", "cache_parameters", parameter_group(timeout="300")),
    bug("connections that stay on a demoted primary", "cache_parameters", parameter_group(close_on_replica_write="no")),
    bug("only one log", "logs", lambda t: props(t, "Cache")["LogDeliveryConfigurations"].pop()),
    bug("logs for ever", "logs", drop("SlowLog", "RetentionInDays")),
    # Network
    bug("no subnet group", "network", drop("Cache", "CacheSubnetGroupName")),
    bug("no security group", "network", drop("Cache", "SecurityGroupIds")),
    bug("other subnets", "network", put("CacheSubnets", SubnetIds=["subnet-1"])),
    bug(
        "the cache may call itself",
        "firewall",
        add(
            "Self",
            "AWS::EC2::SecurityGroupIngress",
            GroupId={"Fn::GetAtt": ["CacheSecurityGroup", "GroupId"]},
            IpProtocol="tcp",
            FromPort=6379,
            ToPort=6379,
            SourceSecurityGroupId=ref("CacheSecurityGroup"),
        ),
    ),
    bug(
        "every address may connect",
        "firewall",
        both(drop("CacheFromApp", "SourceSecurityGroupId"), put("CacheFromApp", CidrIp="0.0.0.0/0")),
    ),
    bug("all ports", "firewall", put("CacheFromApp", FromPort=0, ToPort=65535)),
    bug("rules inside the group", "firewall", put("CacheSecurityGroup", SecurityGroupIngress=[])),
    bug("the cache may open connections", "firewall", drop("CacheSecurityGroup", "SecurityGroupEgress")),
    bug(
        "a bastion that is not there",
        "firewall",
        lambda t: t["Resources"]["CacheFromBastion"].pop("Condition"),
        BastionSecurityGroupId="",
    ),
    # Alerts and rights
    bug("a topic that its policy forgot", "topics", lambda t: props(t, "TopicPolicy")["Topics"].pop()),
    bug("no policy of the topics", "topics", remove("TopicPolicy")),
    bug("alarms of any account", "topics", statement("TopicPolicy", "Alarms", Condition=None)),
    bug("the account is locked out", "topics", statement("TopicPolicy", "Owner", Sid="Other")),
    bug("any account may use the topics", "topics", statement("TopicPolicy", "Owner", Condition=None)),
    bug("the key of AWS", "topics keys", put("CriticalTopic", KmsMasterKeyId="alias/aws/sns")),
    bug("no events of ElastiCache", "topics", drop("Cache", "NotificationTopicArn")),
    bug("events to an encrypted topic", "topics", put("Cache", NotificationTopicArn=ref("InfoTopic")), KmsKeyArn=KEY),
    bug(
        "mail without an address",
        "subscriptions",
        lambda t: t["Resources"]["CriticalEmail"].pop("Condition"),
        AlertEmail="",
    ),
    bug("no mail of emergencies", "subscriptions", remove("EmergencyEmail")),
    bug("metrics of any namespace", "policy", statement("AppPolicy", "PublishMetrics", Condition=None)),
    bug("alerts to any topic", "policy", statement("AppPolicy", "PublishAlerts", Resource="*")),
    bug("everything in ElastiCache", "policy", statement("AppPolicy", "FindEndpoints", Action="elasticache:*")),
    bug("all secrets", "policy", statement("AppPolicy", "ReadToken", Resource="*")),
    bug(
        "IAM on the user only",
        "policy",
        statement("AppPolicy", "SignIn", Resource={"Fn::GetAtt": ["AppUser", "Arn"]}),
        **IAM,
    ),
    bug(
        "a node's name for the primary",
        "outputs",
        output("RedisUrl", {"Fn::Sub": "rediss://${Cache}-001.example:6379/0"}),
    ),
    bug(
        "a plain connection",
        "outputs",
        output("RedisUrl", {"Fn::Sub": "redis://${Cache.PrimaryEndPoint.Address}:6379/0"}),
    ),
    bug(
        "a configuration endpoint without shards",
        "outputs",
        lambda t: t["Outputs"]["ConfigurationEndpoint"].pop("Condition"),
    ),
    bug(
        "a reader without replicas",
        "outputs",
        lambda t: t["Outputs"]["ReplicaUrl"].pop("Condition"),
        ReplicasPerShard=0,
    ),
    bug(
        "a token among the outputs", "outputs", output("Token", {"Fn::Sub": "{{resolve:secretsmanager:${AuthToken}}}"})
    ),
    # Alarms
    bug(
        "the group's id for a node's",
        "alarm_nodes alarm_coverage",
        put("Shard1Node1Cpu", Dimensions=[{"Name": "CacheClusterId", "Value": ref("Cache")}]),
    ),
    bug(
        "node names of the other mode",
        "alarm_nodes alarm_coverage",
        put("Shard1Node2Cpu", Dimensions=[{"Name": "CacheClusterId", "Value": {"Fn::Sub": "${Cache}-0001-002"}}]),
    ),
    bug(
        "an alarm on a replica that is not there",
        "alarm_nodes alarm_actions alarm_incidents",
        lambda t: t["Resources"]["Shard1Node3Cpu"].pop("Condition"),
        ReplicasPerShard=1,
    ),
    bug("no dimensions", "alarm_metrics alarm_coverage", drop("Shard1Node1Memory", "Dimensions")),
    bug("a lag of 83 minutes", "alarm_thresholds", every("ReplicationLag", Threshold=5000)),
    bug(
        "a lag that a primary would have to have",
        "alarm_thresholds alarm_beginning",
        every("ReplicationLag", TreatMissingData="breaching"),
    ),
    bug("an averaged lag", "alarm_metrics", every("ReplicationLag", Statistic="Average")),
    bug("45 connections", "alarm_thresholds", lambda t: None, ConnectionsLimit=45),
    bug(
        "the host's CPU for the engine's",
        "alarm_coverage alarm_thresholds",
        every("EngineCPUUtilization", MetricName="CPUUtilization"),
    ),
    bug(
        "memory that includes buffers",
        "alarm_metrics alarm_coverage",
        every("DatabaseMemoryUsageCountedForEvictPercentage", MetricName="DatabaseMemoryUsagePercentage"),
    ),
    bug("a share for a percentage", "alarm_thresholds", every("EngineCPUUtilization", Threshold=0.8)),
    bug("seconds for milliseconds", "alarm_thresholds alarm_set", put("LatencyWarning", Threshold=0.05)),
    bug("no alarm on evictions", "alarm_coverage", remove("Shard1Node2Evictions")),
    bug(
        "credits of a T node are not watched",
        "alarm_coverage references",
        remove("Shard1Node1Credits"),
        NodeType="cache.t4g.medium",
    ),
    bug(
        "failed sign-ins are watched on one node",
        "alarm_coverage",
        lambda t: props(t, "AuthFailures")["Metrics"].pop(2),
    ),
    bug(
        "a node that falls silent",
        "alarm_coverage",
        every("EngineCPUUtilization", InsufficientDataActions=[]),
    ),
    bug("one node has another limit", "alarm_coverage", put("Shard1Node2Memory", Threshold=70)),
    bug("an alarm without a topic", "alarm_actions", put("DataLoss", AlarmActions=[], OKActions=[])),
    bug(
        "a topic that is not declared",
        "alarm_actions references",
        put("DataLoss", AlarmActions=[ref("SNSTopicArn")], OKActions=[ref("SNSTopicArn")]),
    ),
    bug("an end without a topic", "alarm_actions", drop("DataLoss", "OKActions")),
    bug("actions are off", "alarm_actions", put("Heartbeat", ActionsEnabled="false")),
    bug("missing data is not thought of", "alarm_form", drop("ErrorRate", "TreatMissingData")),
    bug("more datapoints than periods", "alarm_form", put("ErrorRate", DatapointsToAlarm=6)),
    bug("datapoints are not said", "alarm_form", drop("ErrorRate", "DatapointsToAlarm")),
    bug("a period of 45 seconds", "alarm_form alarm_periods", put("Heartbeat", Period=45)),
    bug("two results", "alarm_form", lambda t: props(t, "ErrorRate")["Metrics"][1].update(ReturnData=True)),
    bug(
        "a search in an alarm",
        "alarm_form",
        lambda t: props(t, "AuthFailures")["Metrics"][0].update(
            Expression="SUM(SEARCH('{AWS/ElastiCache,CacheClusterId} AuthenticationFailures', 'Sum', 300))"
        ),
    ),
    bug("a metric that is not published", "alarm_metrics alarm_set", put("Heartbeat", MetricName="Alive")),
    bug("a dimension is missing", "alarm_metrics", lambda t: props(t, "Heartbeat")["Dimensions"].pop()),
    bug(
        "a dimension too many",
        "alarm_metrics",
        lambda t: props(t, "Heartbeat")["Dimensions"].append({"Name": "Host", "Value": "a"}),
    ),
    bug(
        "production's metrics in staging",
        "alarm_metrics",
        lambda t: props(t, "Heartbeat")["Dimensions"][0].update(Value="production"),
        Environment="staging",
    ),
    bug("an averaged level", "alarm_metrics", put("OnReplica", Statistic="Average")),
    bug("silence is health", "alarm_set", put("Heartbeat", TreatMissingData="notBreaching")),
    bug(
        "errors without operations",
        "alarm_set",
        lambda t: props(t, "ErrorRate")["Metrics"][0].update(Expression="errors"),
    ),
    bug(
        "an average of the latency",
        "alarm_metrics alarm_set",
        lambda t: props(t, "LatencyCritical")["Metrics"][1]["MetricStat"].update(Stat="Average"),
    ),
    bug(
        "an emergency as a warning",
        "alarm_set",
        put("WithoutStores", AlarmActions=[ref("WarningTopic")], OKActions=[ref("WarningTopic")]),
    ),
    bug("level 4 from 0 on", "alarm_thresholds alarm_set", put("WithoutStores", Threshold=0)),
    bug("lost data is not watched", "alarm_set references dashboard_complete", remove("DataLoss")),
    bug("lost writes are not watched", "alarm_set references dashboard_complete", remove("WritesLost")),
    bug(
        "alerts that are not sent are not watched",
        "alarm_set references dashboard_complete",
        remove("AlertsFailed"),
    ),
    bug("a heartbeat that alarms", "alarm_thresholds", put("Heartbeat", ComparisonOperator="GreaterThanThreshold")),
    # Dashboard
    bug("no JSON", "dashboard_text", put("Dashboard", DashboardBody="{nope")),
    bug("a variable that is left", "dashboard_text", dashboard('"Slowest commands"', '"${!Oops}"')),
    bug("one node of three", "dashboard_rows", dashboard("(${Nodes})", 'CacheClusterId=\\"${Cache}-001\\"')),
    bug(
        "a hard-coded node",
        "dashboard_rows",
        dashboard("(${Nodes})", 'CacheClusterId=\\"langpont-session-cluster-001\\"'),
    ),
    bug("rows without dimensions", "dashboard_rows", dashboard(f'"FallbackLevel", {ROWS}', '"FallbackLevel"')),
    bug(
        "rows with half the dimensions",
        "dashboard_rows",
        dashboard(f'"FallbackLevel", {ROWS}', '"FallbackLevel", "Environment", "${Environment}"'),
    ),
    bug("a misspelt metric", "dashboard_rows dashboard_complete", dashboard('"ActiveSessions"', '"SessionsActive"')),
    bug(
        "an error rate that is not published",
        "dashboard_rows",
        dashboard(
            '[{"expression": "IF(operations > 0, 100 * errors / operations, 0)", "id": "rate",\n'
            '"label": "Error rate", "yAxis": "right"}]',
            f'["LangPont/Session", "ErrorRate", {ROWS}]',
        ),
    ),
    bug(
        "a search by a dimension that is not published",
        "dashboard_rows",
        dashboard("Service,Backend}", "Service,Host}"),
    ),
    bug(
        "another environment's rows",
        "dashboard_rows",
        dashboard(
            f'"FallbackLevel", {ROWS}', '"FallbackLevel", "Environment", "production", "Service", "${ServiceName}"'
        ),
        Environment="staging",
    ),
    bug("counts and percent on one axis", "dashboard_axes", dashboard('"yAxis": "right"', '"yAxis": "left"')),
    bug(
        "an average of the latency in a graph",
        "dashboard_statistics dashboard_complete",
        dashboard('"stat": "p99"', '"stat": "Average"'),
    ),
    bug("an average of sessions", "dashboard_statistics", dashboard('{"stat": "Maximum"}', '{"stat": "Average"}')),
    bug(
        "errors in a log that has none",
        "dashboard_logs",
        dashboard("| sort `Duration (us)` desc", "| filter @message like /ERROR/"),
    ),
    bug(
        "a level that the engine has not",
        "dashboard_logs",
        dashboard('LogLevel = \\"WARNING\\"', 'LogLevel = \\"ERROR\\"'),
    ),
    bug(
        "a log that is not declared", "dashboard_logs", dashboard("'${SlowLog}'", "'/aws/elasticache/langpont-session'")
    ),
    bug("a region in the dashboard", "literals", dashboard("${AWS::Region}", "ap-northeast-1")),
    bug("another region", "literals dashboard_layout", dashboard("${AWS::Region}", "us-east-1")),
    bug("no layout", "dashboard_layout", dashboard('"x": 0, "y": 3, "width": 8, "height": 6, ', "")),
    bug("widgets over each other", "dashboard_layout", dashboard('"x": 8, "y": 3', '"x": 4, "y": 3')),
    bug("a widget beyond the page", "dashboard_layout", dashboard('"x": 12, "y": 27', '"x": 20, "y": 27')),
    bug(
        "no view",
        "dashboard_layout",
        dashboard('"view": "timeSeries", "period": 60, "stat": "Maximum",', '"period": 60, "stat": "Maximum",'),
    ),
    bug("no latency", "dashboard_complete", dashboard('"stat": "p95"', '"stat": "p99"')),
    bug(
        "no latency by operation",
        "dashboard_complete",
        both(
            dashboard('MetricName=\\"OperationLatency\\"', 'MetricName=\\"Operations\\"'), dashboard("'p99'", "'Sum'")
        ),
    ),
    bug("alarms without the one on latency", "dashboard_complete", dashboard(', "${LatencyCritical.Arn}"', "")),
]
