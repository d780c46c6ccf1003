"""The template made by hand: each resource's resolved properties go to the API call of the same name.

moto's CloudFormation makes no cache, alarm, secret, subscription or topic policy and reports success all the same. The
properties of these resources are called as the parameters of the API are, so the API can be asked itself, and botocore
checks every name and type on the way.
"""

from __future__ import annotations

import json
import urllib.request
import uuid
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.validate import validate_parameters

from tests.infra.template import Deployment, good_template


class Aws:
    """Clients of one endpoint, with made-up credentials."""

    def __init__(self, url: str, region: str) -> None:
        self._session = boto3.Session("test", "test", region_name=region)
        self._url = url
        self._clients: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        # Making a client reads the service's model, which takes longer than all calls of a test.
        if service not in self._clients:
            self._clients[service] = self._session.client(service, endpoint_url=self._url)
        return self._clients[service]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


def reset(url: str) -> None:
    """Empty the account of a moto server."""
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()


def check(client: Any, operation: str, arguments: dict[str, Any]) -> None:
    """Let botocore check the arguments of a call that moto has not."""
    validate_parameters(arguments, client.meta.service_model.operation_model(operation).input_shape)


@dataclass
class Stack:
    """One deployment of the template by API calls, in the order in which CloudFormation would make them.

    :ivar physical: what ``Ref`` and ``GetAtt`` of the resources yield by now.
    """

    aws: Aws
    name: str
    parameters: dict[str, Any]
    physical: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        account = self.aws("sts").get_caller_identity()["Account"]
        id_ = f"arn:aws:cloudformation:region:{account}:stack/{self.name}/{uuid.uuid4()}"
        self.physical |= {"AWS::StackName": self.name, "AWS::AccountId": account, "AWS::StackId": id_}
        self.parameters |= network(self.aws)
        for make in (self._topics, self._logs, self._secret, self._firewall, self._groups, self._users, self._cache):
            make()
        for make in (self._alarms, self._dashboard, self._rights):
            make()

    @property
    def deployment(self) -> Deployment:
        """The template with what is made by now put in."""
        return Deployment(good_template(), self.parameters, self.physical)

    def _of(self, type_: str) -> list[tuple[str, dict[str, Any]]]:
        return list(self.deployment.of_type(f"AWS::{type_}").items())

    def _topics(self) -> None:
        for name, properties in self._of("SNS::Topic"):
            self.physical[name] = self.aws("sns").create_topic(Name=properties["TopicName"])["TopicArn"]
        for _, subscription in self._of("SNS::Subscription"):
            self.aws("sns").subscribe(**subscription)
        for _, policy in self._of("SNS::TopicPolicy"):
            for arn in policy["Topics"]:
                self.aws("sns").set_topic_attributes(
                    TopicArn=arn, AttributeName="Policy", AttributeValue=json.dumps(policy["PolicyDocument"])
                )

    def _logs(self) -> None:
        for name, properties in self._of("Logs::LogGroup"):
            group = self.physical[name] = properties["LogGroupName"]
            self.aws("logs").create_log_group(logGroupName=group)
            self.aws("logs").put_retention_policy(logGroupName=group, retentionInDays=properties["RetentionInDays"])

    def _secret(self) -> None:
        for name, properties in self._of("SecretsManager::Secret"):
            secrets = self.aws("secretsmanager")
            generated = properties["GenerateSecretString"]
            content = json.loads(generated.pop("SecretStringTemplate"))
            key = generated.pop("GenerateStringKey")
            content[key] = secrets.get_random_password(**generated)["RandomPassword"]
            made = secrets.create_secret(
                Name=f"{self.name}-{name}", Description=properties["Description"], SecretString=json.dumps(content)
            )
            self.physical[name] = made["ARN"]

    def _firewall(self) -> None:
        for name, properties in self._of("EC2::SecurityGroup"):
            made = self.aws("ec2").create_security_group(
                GroupName=f"{self.name}-{name}", Description=properties["GroupDescription"], VpcId=properties["VpcId"]
            )
            self.physical[f"{name}.GroupId"] = made["GroupId"]

    def _groups(self) -> None:
        cache = self.aws("elasticache")
        for name, properties in self._of("ElastiCache::SubnetGroup"):
            self.physical[name] = f"{self.name}-subnets"
            cache.create_cache_subnet_group(
                CacheSubnetGroupName=self.physical[name],
                CacheSubnetGroupDescription=properties["Description"],
                SubnetIds=properties["SubnetIds"],
            )
        for name, properties in self._of("ElastiCache::ParameterGroup"):
            self.physical[name] = f"{self.name}-parameters"
            values = [{"ParameterName": k, "ParameterValue": v} for k, v in properties["Properties"].items()]
            arguments = {"CacheParameterGroupName": self.physical[name], "ParameterNameValues": values}
            check(cache, "ModifyCacheParameterGroup", arguments)

    def _users(self) -> None:
        cache = self.aws("elasticache")
        for name, properties in self._of("ElastiCache::User"):
            mode = properties["AuthenticationMode"]
            if "Passwords" in mode:
                mode["Passwords"] = [self._shown(text) for text in mode["Passwords"]]
            made = cache.create_user(**properties)
            self.physical |= {name: made["UserId"], f"{name}.Arn": made["ARN"]}
        for name, properties in self._of("ElastiCache::UserGroup"):
            check(cache, "CreateUserGroup", properties)
            self.physical[name] = properties["UserGroupId"]

    def _cache(self) -> None:
        cache = self.aws("elasticache")
        [(name, properties)] = self._of("ElastiCache::ReplicationGroup")
        cache.create_replication_group(ReplicationGroupId=self.name, **properties)
        self.physical[name] = self.name
        for key, endpoint in (("ConfigurationEndPoint", self.cache.get("ConfigurationEndpoint")), *self._primary()):
            if endpoint:
                self.physical |= {f"{name}.{key}.Address": endpoint["Address"], f"{name}.{key}.Port": endpoint["Port"]}

    def _shown(self, reference: str) -> str:
        """Return the value of a dynamic reference to a key of a secret."""
        arn, _, key = (
            reference.removeprefix("{{resolve:secretsmanager:").removesuffix("}}").rpartition(":SecretString:")
        )
        content = json.loads(self.aws("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
        return str(content[key])

    def _primary(self) -> list[tuple[str, dict[str, Any] | None]]:
        return [("PrimaryEndPoint", self.cache["NodeGroups"][0].get("PrimaryEndpoint"))]

    @property
    def cache(self) -> dict[str, Any]:
        """The replication group as ElastiCache describes it."""
        [group] = self.aws("elasticache").describe_replication_groups(ReplicationGroupId=self.name)["ReplicationGroups"]
        assert isinstance(group, dict)
        return group

    def _alarms(self) -> None:
        for name, properties in self._of("CloudWatch::Alarm"):
            properties["ActionsEnabled"] = properties["ActionsEnabled"] == "true"  # CloudFormation takes the word
            self.aws("cloudwatch").put_metric_alarm(AlarmName=f"{self.name}-{name}", **properties)
            self.physical |= {name: f"{self.name}-{name}", f"{name}.Arn": f"arn:of:{name}"}
        for name, properties in self._of("CloudWatch::CompositeAlarm"):  # which moto has not
            properties["ActionsEnabled"] = properties["ActionsEnabled"] == "true"
            check(self.aws("cloudwatch"), "PutCompositeAlarm", {"AlarmName": f"{self.name}-{name}", **properties})
            self.physical |= {name: f"{self.name}-{name}", f"{name}.Arn": f"arn:of:{name}"}

    def _dashboard(self) -> None:
        for _, properties in self._of("CloudWatch::Dashboard"):
            self.aws("cloudwatch").put_dashboard(**properties)

    def _rights(self) -> None:
        for name, properties in self._of("IAM::ManagedPolicy"):
            made = self.aws("iam").create_policy(
                PolicyName=f"{self.name}-{name}", PolicyDocument=json.dumps(properties["PolicyDocument"])
            )
            self.physical[name] = made["Policy"]["Arn"]


def network(aws: Aws) -> dict[str, Any]:
    """A network with two subnets and the groups of application and bastion, as parameters of the template."""
    ec2 = aws("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]][:2]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{i}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for i, zone in enumerate(zones)
    ]
    app, bastion = (
        ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"] for name in ("app", "bastion")
    )
    return {
        "VpcId": vpc, "SubnetIds": subnets, "AppSecurityGroupId": app, "BastionSecurityGroupId": bastion,
    }  # fmt: skip
