"""Mistakes that AWS refuses in the middle of a deployment, drops silently, or takes and never acts on."""

from __future__ import annotations

from typing import Any

from tests.infra.seed_bugs import (
    IAM,
    KEY,
    RIGHTS,
    SHARDED,
    Bug,
    Change,
    Template,
    both,
    bug,
    default,
    drop,
    every,
    generated,
    parameter_group,
    piece,
    props,
    put,
    ref,
    remove,
    rights,
    statement,
)

SIX = {"ReplicasPerShard": 5}
LOSS = ". docs/operations.md#dataloss"
PRIVATE = {"VpcEndpoints": "yes"}


def key(name: str, value: Any) -> Change:
    """Set what stands beside the properties of a resource."""
    return lambda t: t["Resources"][name].update(value)


def queries(name: str) -> Any:
    """The metrics of an alarm by metric math."""
    return lambda t: props(t, name)["Metrics"]


def window(**values: str) -> dict[str, str]:
    return values


def allow(parameter: str, *values: Any) -> Change:
    """Offer more values of a parameter."""
    return lambda t: t["Parameters"][parameter]["AllowedValues"].extend(values)


def topic_actions(*actions: str) -> Change:
    return statement("TopicPolicy", "Owner", Action=list(actions))


def version(resource: str) -> Change:
    return lambda t: props(t, resource)["PolicyDocument"].update(Version="2008-10-17")


def swap_latencies(template: Template) -> None:
    one, other = props(template, "LatencyWarning"), props(template, "LatencyCritical")
    for key in ("Threshold", "Metrics"):
        one[key], other[key] = other[key], one[key]


def query(name: str, number: int, **values: Any) -> Change:
    """Change one of the metrics of an alarm by metric math; of a metric itself, keep what is not said."""

    def change(template: Template) -> None:
        one = queries(name)(template)[number]
        for key, value in values.items():
            one[key] = {**one[key], **value} if isinstance(value, dict) else value

    return change


def rule_of(name: str, old: str, new: str) -> Change:
    """Replace a piece of an incident's rule, which it must have."""
    return piece(name, "AlarmRule", old, new)


TOLD = {"AlarmActions": [ref("CriticalTopic")], "OKActions": [ref("CriticalTopic")]}


AWS_BUGS: list[Bug] = [
    # What ElastiCache refuses, or takes for something else
    bug("an unknown parameter of the engine", "cache_parameters", parameter_group(session_ttl="3600")),
    bug("a parameter that ElastiCache keeps to itself", "cache_parameters", parameter_group(appendonly="yes")),
    bug(
        "a policy of eviction that there is not", "cache_parameters", parameter_group(maxmemory_policy="volatile-fifo")
    ),
    bug("a word for a number", "cache_parameters", parameter_group(tcp_keepalive="on")),
    bug("more memory in reserve than there is", "cache_parameters", parameter_group(reserved_memory_percent="125")),
    bug(
        "the default eviction",
        "cache_parameters",
        lambda t: props(t, "CacheParameters")["Properties"].pop("maxmemory-policy"),
    ),
    bug(
        "a family of a later engine",
        "engine",
        lambda t: t["Mappings"]["Engines"]["valkey-8.1"].update(Family="valkey9"),
    ),
    bug("an engine that is offered and not described", "engine", allow("Engine", "valkey-9.2")),
    bug("snapshots for two months", "retention", put("Cache", SnapshotRetentionLimit=60)),
    bug("a window of half an hour", "windows", lambda t: None, SnapshotWindow="17:00-17:30"),
    bug(
        "an update of shards that replaces the group",
        "replacement",
        lambda t: t["Resources"]["Cache"].pop("UpdatePolicy"),
    ),
    bug("shards of fixed slots", "replacement", put("Cache", NodeGroupConfiguration=[{"Slots": "0-16383"}])),
    bug("a network type that is fixed for good", "replacement", put("Cache", NetworkType="ipv4")),
    bug("data tiering for good", "replacement node_type", put("Cache", DataTieringEnabled=True)),
    bug("no key for the data", "keys", drop("Cache", "KmsKeyId"), KmsKeyArn=KEY),
    bug("no key for the secret", "keys", drop("AuthToken", "KmsKeyId"), KmsKeyArn=KEY),
    bug("no key for a log", "keys", drop("EngineLog", "KmsKeyId"), KmsKeyArn=KEY),
    bug("no key for a topic", "keys", drop("EmergencyTopic", "KmsMasterKeyId"), KmsKeyArn=KEY),
    bug("a key that nothing asked for", "keys literals", put("Cache", KmsKeyId=KEY)),
    bug(
        "a log group by the name of a stream",
        "logs",
        lambda t: props(t, "Cache")["LogDeliveryConfigurations"][0].update(DestinationType="kinesis-firehose"),
    ),
    bug("a log for 45 days", "logs", put("SlowLog", RetentionInDays=45)),
    # Users
    bug("no right to ask for the slots", "users", rights("AppUser", "+cluster|slots", ""), **IAM),
    bug("no right to ask for the epoch", "users", rights("TokenUser", "+cluster|info", "")),
    bug("no scripts", "users", rights("TokenUser", "+@scripting", "")),
    bug("dangerous commands", "users", rights("TokenUser", "-@dangerous ", "")),
    bug("a right too many", "users", rights("TokenUser", "+info", "+info +config|get")),
    bug("all is taken away at the end", "users", put("TokenUser", AccessString=f"on ~session:* {RIGHTS} -@all")),
    bug("no password is required", "users", put("TokenUser", NoPasswordRequired=True)),
    bug("a user who needs no password", "users", put("TokenUser", AuthenticationMode={"Type": "no-password-required"})),
    bug("the application's user is switched off", "users", rights("AppUser", "on ", "off "), **IAM),
    bug("an id with capitals", "users physical_names", put("AppUser", UserId="App", UserName="App"), **IAM),
    bug("a user of another engine", "users", put("AppUser", Engine="redis"), **IAM),
    bug("a password in the template", "users", put("TokenUser", Passwords=["x" * 20])),
    bug(
        "another piece of the secret",
        "token",
        put(
            "TokenUser",
            AuthenticationMode={
                "Type": "password",
                "Passwords": [{"Fn::Sub": "{{resolve:secretsmanager:${AuthToken}:SecretString:token}}"}],
            },
        ),
    ),
    bug("a secret without a user name", "token", generated(SecretStringTemplate="{}")),
    bug("a secret of another user", "token", generated(SecretStringTemplate='{"username": "app"}')),
    bug(
        "a secret that is a text and not an object",
        "token",
        lambda t: [
            props(t, "AuthToken")["GenerateSecretString"].pop(name)
            for name in ("SecretStringTemplate", "GenerateStringKey")
        ],
    ),
    bug(
        "the token's user stays with IAM",
        "user_group references",
        put("AppUsers", UserIds=[ref("TokenUser"), ref("AppUser")]),
        **IAM,
    ),
    bug("one user where both are wanted", "user_group", put("AppUsers", UserIds=[ref("AppUser")]), AuthMode="both"),
    bug("no default user of Redis OSS", "user_group", put("AppUsers", UserIds=[ref("TokenUser")]), Engine="redis-7.1"),
    bug(
        "a default user who may read", "user_group", put("DefaultUser", AccessString="on ~* +@read"), Engine="redis-7.1"
    ),
    # Network
    bug("a security group that is forgotten", "firewall", remove("CacheFromThird"), ThirdSecurityGroupId="sg-3a1b2c3d"),
    bug("a description that EC2 refuses", "firewall", put("CacheFromApp", Description="The application's")),
    bug("an endpoint that nothing may call", "firewall", remove("EndpointsFromApp"), **PRIVATE),
    bug("an endpoint that is left out", "endpoints", remove("EndpointOfMetrics"), **PRIVATE),
    bug("a gateway where there is none", "endpoints", put("EndpointOfTopics", VpcEndpointType="Gateway"), **PRIVATE),
    bug(
        "public names for private endpoints",
        "endpoints",
        put("EndpointOfElastiCache", PrivateDnsEnabled=False),
        **PRIVATE,
    ),
    bug("endpoints without a security group", "endpoints", drop("EndpointOfTopics", "SecurityGroupIds"), **PRIVATE),
    # Topics and rights
    bug(
        "ElastiCache's events to an encrypted topic",
        "topics",
        put("EventsTopic", KmsMasterKeyId=ref("KmsKeyArn")),
        KmsKeyArn=KEY,
    ),
    bug("events among the alerts", "topics", put("Cache", NotificationTopicArn=ref("InfoTopic"))),
    bug("mail from a FIFO topic", "topics", put("WarningTopic", FifoTopic=True)),
    bug("everything in a topic's policy", "topics", topic_actions("sns:*")),
    bug(
        "a policy by which the owner cannot publish", "topics", topic_actions("sns:Subscribe", "sns:GetTopicAttributes")
    ),
    bug("a policy that denies", "topics", statement("TopicPolicy", "Alarms", Effect="Deny")),
    bug("alarms that may only subscribe", "topics", statement("TopicPolicy", "Alarms", Action="sns:Subscribe")),
    bug("a policy of topics of an old version", "topics", version("TopicPolicy")),
    bug("mail by another protocol", "subscriptions", put("WarningEmail", Protocol="e-mail")),
    bug("a right of an old version", "policy", version("AppPolicy")),
    bug("a right that is denied", "policy", statement("AppPolicy", "PublishAlerts", Effect="Deny")),
    bug(
        "metrics of a namespace that CloudWatch keeps",
        "policy",
        statement("AppPolicy", "PublishMetrics", Condition={"StringEquals": {"cloudwatch:namespace": "AWS/Session"}}),
    ),
    # Parameters and conditions
    bug("a default that is not allowed", "parameters", default("ReplicasPerShard", Default=9)),
    bug("a condition that is not declared", "references network", key("CacheSubnets", {"Condition": "Private"})),
    # Alarms
    bug("an alarm that looks back over a week", "alarm_form", put("DataLoss", EvaluationPeriods=1441)),
    bug("a heartbeat that stops for a minute", "alarm_set", put("Heartbeat", DatapointsToAlarm=1)),
    bug("critical before warning", "alarm_set", swap_latencies),
    bug(
        "one limit of the latency for both",
        "alarm_set",
        both(put("LatencyWarning", Threshold=100), query("LatencyWarning", 2, MetricStat={"Stat": "TC(100:)"})),
    ),
    bug("a p99 of few calls", "alarm_set", query("LatencyWarning", 0, Expression="p99")),
    bug("calls are slow from another limit on", "alarm_set", query("LatencyWarning", 2, MetricStat={"Stat": "TC(9:)"})),
    bug("the worst second of a minute", "alarm_set", put("OnReplica", MetricName="FallbackLevel")),
    bug("one sample is an outage", "alarm_set", put("PrimaryDown", DatapointsToAlarm=1)),
    bug(
        "a store that there is not",
        "alarm_set",
        lambda t: props(t, "PrimaryDown")["Dimensions"][2].update(Value="cache"),
    ),
    bug(
        "what no incident consists of",
        "alarm_actions alarm_incidents alarm_set",
        rule_of("RedisIncident", '("${PrimaryDown}")', '("${OnReplica}")'),
    ),
    bug("what is told twice", "alarm_actions alarm_set", put("PrimaryDown", **TOLD)),
    bug(
        "one outage as three incidents",
        "alarm_incidents",
        drop("RedisIncident", *(f"ActionsSuppressor{more}" for more in ("", "WaitPeriod", "ExtensionPeriod"))),
    ),
    bug("a suppressor that does not wait", "alarm_incidents", drop("RedisIncident", "ActionsSuppressorWaitPeriod")),
    bug(
        "a site that is missed before it is there",
        "alarm_beginning alarm_actions",
        rule_of("SiteIncident", ' AND OK("${HasReported}")', ""),
    ),
    bug("a site that may fall silent", "alarm_set", put("HasReported", TreatMissingData="missing")),
    bug(
        "an incident of an alarm that is named by hand",
        "alarm_incidents",
        rule_of("SiteIncident", '"${Heartbeat}"', '"Heartbeat"'),
    ),
    bug(
        "a node's incident of another node's alarm",
        "alarm_incidents alarm_actions",
        lambda t: props(t, "Shard1Node2Health")["AlarmRule"]["Fn::Join"][1][0].update(
            {"Fn::Sub": 'ALARM("${Shard1Node1Cpu}")'}
        ),
    ),
    bug(
        "an outage of all stores at once only",
        "alarm_incidents",
        lambda t: props(t, "RedisIncident").update(
            AlarmRule={"Fn::Sub": props(t, "RedisIncident")["AlarmRule"]["Fn::Sub"].replace(" OR ", " AND ")}
        ),
    ),
    bug(
        "an incident that is told when it is over",
        "alarm_incidents alarm_beginning",
        rule_of("DatabaseIncident", 'ALARM("${DatabaseDown}")', 'OK("${DatabaseDown}")'),
    ),
    bug("evictions of many", "alarm_thresholds", every("Evictions", Threshold=1000)),
    bug("a silent node is a calm one", "alarm_actions", every("EngineCPUUtilization", TreatMissingData="notBreaching")),
    bug("less than no heartbeat", "alarm_thresholds", put("Heartbeat", Threshold=0)),
    bug("a thousand refused sign-ins", "alarm_thresholds", put("GrantsRefused", Threshold=1000)),
    bug("half a store", "alarm_thresholds", put("PrimaryDown", ComparisonOperator="GreaterThanThreshold")),
    bug("an incident that leads nowhere", "alarm_form", put("RedisIncident", AlarmDescription="Redis is away.")),
    bug(
        "an incident that cannot be switched off",
        "alarm_actions",
        drop("RedisIncident", "ActionsEnabled"),
        AlarmActions="false",
    ),
    bug(
        "one of two processors may be busy for ever",
        "alarm_thresholds",
        lambda t: t["Mappings"]["NodeTypes"]["cache.m7g.large"].update(HostCpuPercent=90),
    ),
    bug("memory beside the data on one node", "alarm_coverage references", remove("Shard1Node2Pressure")),
    bug("packets in one direction", "alarm_coverage", lambda t: queries("Shard1Node1Network")(t).pop(2)),
    bug("refused commands on one node", "alarm_coverage", remove("Shard1Node2Rights")),
    bug("a replica without an alarm on its lag", "alarm_coverage references", remove("Shard1Node3Lag")),
    bug("a replica of a shard without alarms", "alarm_coverage references", remove("Shard3Node3Cpu"), **SHARDED),
    bug("the sixth node without an alarm", "alarm_coverage references", remove("Shard1Node6Memory"), **SIX),
    bug(
        "alarms of the sixth node on the fifth",
        "alarm_coverage",
        put("Shard1Node6HostCpu", Dimensions=[{"Name": "CacheClusterId", "Value": {"Fn::Sub": "${Cache}-005"}}]),
        **SIX,
    ),
    bug("nothing watches refused sign-ins", "alarm_set references dashboard_complete", remove("GrantsRefused")),
    bug(
        "a percentile that sleeps at night",
        "alarm_form",
        put("LatencyWarning", EvaluateLowSampleCountPercentile="ignore"),
    ),
    bug("percentiles of a sum", "alarm_form", put("DataLoss", EvaluateLowSampleCountPercentile="evaluate")),
    bug("two statistics", "alarm_form", put("DataLoss", ExtendedStatistic="p99")),
    bug("a unit in which nothing is published", "alarm_form", put("DataLoss", Unit="Seconds")),
    bug("missing data in other words", "alarm_form", put("DataLoss", TreatMissingData="notbreaching")),
    bug("a comparison that there is not", "alarm_form", every("CurrConnections", ComparisonOperator="GreaterThan")),
    bug("a description that is too long", "alarm_form", put("DataLoss", AlarmDescription="x" * 1025 + LOSS)),
    bug("a description that leads nowhere", "alarm_form", put("DataLoss", AlarmDescription="A Redis was emptied")),
    bug("an id that begins with a capital", "alarm_form", lambda t: queries("ErrorRate")(t)[1].update(Id="Errors")),
    bug(
        "the sum of a metric that is not read",
        "alarm_form alarm_set",
        lambda t: queries("ErrorRate")(t)[0].update(Expression="100 * failures / operations"),
    ),
    bug(
        "eleven metrics in one alarm",
        "alarm_form",
        lambda t: queries("AuthFailures")(t).extend(
            {**queries("AuthFailures")(t)[1], "Id": f"again{number}"} for number in range(8)
        ),
    ),
    bug("an alarm that is never switched on", "alarm_actions", put("DataLoss", ActionsEnabled="false")),
    bug(
        "an alarm that cannot be switched off",
        "alarm_actions",
        drop("DataLoss", "ActionsEnabled"),
        AlarmActions="false",
    ),
    bug(
        "silence that is told to nothing of ours",
        "alarm_actions literals",
        every("EngineCPUUtilization", InsufficientDataActions=["arn:aws:sns:eu-west-1:<account>:x"]),
    ),
    bug(
        "an alarm on the level of another name",
        "alarm_metrics alarm_set",
        both(
            put("OnReplica", MetricName="Level"),
            put("WithoutRedis", MetricName="Level"),
            put("WithoutStores", MetricName="Level"),
        ),
    ),
]
