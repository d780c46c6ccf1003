"""The template deployed by moto's CloudFormation, as far as that goes: what it does not make is taken out before."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from flask_langpont_session.metrics import catalogue
from tests.infra.aws import Aws, network, reset
from tests.infra.environments import parameters
from tests.infra.template import REGION, Deployment, copied, good_template

NAME = "langpont-sessions-production"

MADE = {
    "AWS::EC2::SecurityGroup", "AWS::EC2::SecurityGroupIngress", "AWS::Logs::LogGroup", "AWS::SNS::Topic",
    "AWS::CloudWatch::Dashboard", "AWS::IAM::ManagedPolicy",
}  # fmt: skip


GIVEN = parameters("production", AuthMode="iam")
NO_VALUE = {"Ref": "AWS::NoValue"}


def reduced(template: dict[str, Any]) -> dict[str, Any]:
    """The template with the resources that moto makes; references to the others are texts that tell them apart."""
    kept = copied(template)
    others = {name for name, resource in kept["Resources"].items() if resource["Type"] not in MADE}
    kept["Resources"] = {n: _told_apart(r, others) for n, r in kept["Resources"].items() if n not in others}
    # moto finds the number 1 different from the text "1"; CloudFormation compares texts.
    for counted in ("NumShards", "ReplicasPerShard"):
        kept["Parameters"][counted]["Type"] = "String"
        kept["Parameters"][counted]["Default"] = str(kept["Parameters"][counted]["Default"])
    kept["Outputs"] = {
        name: output
        for name, output in kept["Outputs"].items()
        if not any(f'"{other}"' in json.dumps(output) or f"${{{other}" in json.dumps(output) for other in others)
    }
    return kept


def _told_apart(node: Any, others: set[str]) -> Any:
    if isinstance(node, list):
        return [_told_apart(item, others) for item in map(_decided, node) if item != NO_VALUE]
    if isinstance(node, str):
        return re.sub(r"\$\{(\w+)(\.\w+)?\}", lambda r: f"the-{r[1]}" if r[1] in others else r[0], node)
    if not isinstance(node, dict):
        return node
    if node.get("Ref") in others:
        return f"the-{node['Ref']}"
    if node.get("Fn::GetAtt", [None])[0] in others:
        return f"arn:aws:made:::the-{node['Fn::GetAtt'][0]}"
    if NO_VALUE in node.get("Fn::If", []):
        return node
    return {key: _told_apart(value, others) for key, value in node.items()}


def _decided(item: Any) -> Any:
    """An item of a list that may be no value: moto would put a null there."""
    if isinstance(item, dict) and NO_VALUE in item.get("Fn::If", []):
        condition, yes, no = item["Fn::If"]
        return yes if Deployment(good_template(), GIVEN).condition(condition) else no
    return item


@pytest.fixture(scope="module")
def aws(moto: str, clients: Aws) -> Iterator[Aws]:
    """An account with production's stack in it. The tests only look."""
    reset(moto)
    given = GIVEN | network(clients)
    clients("iam").create_role(RoleName="langpont-app", AssumeRolePolicyDocument="{}")
    clients("cloudformation").create_stack(
        StackName=NAME,
        TemplateBody=json.dumps(reduced(good_template())),
        Parameters=[
            {"ParameterKey": key, "ParameterValue": ",".join(value) if isinstance(value, list) else str(value)}
            for key, value in given.items()
        ],
        Capabilities=["CAPABILITY_IAM"],
    )
    yield clients


def resources(aws: Aws) -> dict[str, str]:
    """Logical id → physical id of what the stack made."""
    found = aws("cloudformation").describe_stack_resources(StackName=NAME)["StackResources"]
    # moto lists those that a condition rules out, without their names.
    return {one["LogicalResourceId"]: one.get("PhysicalResourceId", "") for one in found if "LogicalResourceId" in one}


def test_the_stack_is_made(aws: Aws) -> None:
    """Everything that is left of it, and nothing that its conditions rule out."""
    [stack] = aws("cloudformation").describe_stacks(StackName=NAME)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert set(resources(aws)) == {
        "CacheSecurityGroup", "CacheFromApp", "CacheFromBastion", "SlowLog", "EngineLog", "Dashboard", "AppPolicy",
        "InfoTopic", "WarningTopic", "CriticalTopic", "EmergencyTopic", "EventsTopic",
    }  # fmt: skip
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    assert outputs["EmergencyTopicArn"] == resources(aws)["EmergencyTopic"]
    assert outputs["AppPolicyArn"] == resources(aws)["AppPolicy"]


def test_topics_and_logs_carry_the_name_of_the_stack(aws: Aws) -> None:
    """Two stacks live beside each other; logs are kept as long as production asked."""
    topics = {topic["TopicArn"].rsplit(":", 1)[1] for topic in aws("sns").list_topics()["Topics"]}
    alerts = {f"{NAME}-{severity}-alerts" for severity in ("info", "warning", "critical", "emergency")}
    assert topics == {*alerts, f"{NAME}-events"}
    logs = {g["logGroupName"]: g["retentionInDays"] for g in aws("logs").describe_log_groups()["logGroups"]}
    assert logs == {f"/aws/vendedlogs/elasticache/{NAME}/{kind}-log": 90 for kind in ("slow", "engine")}


def test_only_application_and_bastion_reach_the_cache(aws: Aws) -> None:
    """One port, from two security groups, from no address."""
    [group] = aws("ec2").describe_security_groups(GroupIds=[resources(aws)["CacheSecurityGroup"]])["SecurityGroups"]
    names_ = {g["GroupId"]: g["GroupName"] for g in aws("ec2").describe_security_groups()["SecurityGroups"]}
    allowed = group["IpPermissions"]
    assert {(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in allowed} == {("tcp", 6379, 6379)}
    assert sorted(names_[pair["GroupId"]] for rule in allowed for pair in rule["UserIdGroupPairs"]) == [
        "app",
        "bastion",
    ]
    assert not any(rule.get("IpRanges") or rule.get("Ipv6Ranges") for rule in allowed)


def test_the_dashboard_is_filled_in(aws: Aws) -> None:
    """Region, environment, service, nodes and logs stand where the variables stood."""
    body = aws("cloudwatch").get_dashboard(DashboardName=NAME)["DashboardBody"]
    widgets = json.loads(body)["widgets"]
    assert "${" not in body
    assert {w["properties"]["region"] for w in widgets if w["type"] != "alarm"} == {REGION}
    [level] = [w["properties"]["metrics"] for w in widgets if w["properties"]["title"] == "Fallback level"]
    own = ["Environment", "production", "Service", "LangPont"]
    assert level == [
        [catalogue.NAMESPACE, "FallbackLevel", *own, {"label": "worst"}],
        [catalogue.NAMESPACE, "CurrentLevel", *own, {"label": "at the moment"}],
    ]
    assert set(re.findall(r'CacheClusterId=\\"([^"\\]+)', body)) == {"the-Cache-001", "the-Cache-002", "the-Cache-003"}
    assert f"SOURCE '/aws/vendedlogs/elasticache/{NAME}/slow-log'" in body


def test_the_application_gets_the_policy_and_may_do_what_it_does(aws: Aws) -> None:
    """It is on the role that was named, and its text names only what is the stack's own."""
    attached = aws("iam").list_attached_role_policies(RoleName="langpont-app")["AttachedPolicies"]
    assert [policy["PolicyArn"] for policy in attached] == [resources(aws)["AppPolicy"]]
    policy = aws("iam").get_policy(PolicyArn=resources(aws)["AppPolicy"])["Policy"]
    version = aws("iam").get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
    statements = {s["Sid"]: s for s in version["PolicyVersion"]["Document"]["Statement"]}
    assert set(statements) == {"PublishMetrics", "PublishAlerts", "FindEndpoints", "SignIn"}
    assert statements["PublishMetrics"]["Condition"] == {"StringEquals": {"cloudwatch:namespace": catalogue.NAMESPACE}}
    topics = {arn for name, arn in resources(aws).items() if name.endswith("Topic") and name != "EventsTopic"}
    assert set(statements["PublishAlerts"]["Resource"]) == topics
    account = aws("sts").get_caller_identity()["Account"]
    cache = f"arn:aws:elasticache:{REGION}:{account}:replicationgroup:the-Cache"
    assert statements["FindEndpoints"]["Resource"] == cache
    assert statements["SignIn"]["Resource"] == [cache, "arn:aws:made:::the-AppUser"]
