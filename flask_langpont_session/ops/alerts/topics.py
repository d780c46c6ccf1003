"""SNS topics: which one a severity goes to, and one attempt to publish there."""

from __future__ import annotations

from collections.abc import Mapping

from ...aws.client import aws_client, explain
from .messages import Message
from .table import Severity


class NotSent(Exception):
    """A message did not reach SNS, as far as can be told. The text says why, for an operator; without secrets."""


class Topics:
    """The topics of one application.

    :param arns: severity → topic ARN; at least one.
    """

    def __init__(self, arns: Mapping[str, str]) -> None:
        self._arns = {Severity(severity): arn for severity, arn in arns.items()}

    def takes(self, severity: Severity) -> bool:
        """Return whether alerts of a severity are sent. Those for information do not go to another topic."""
        return severity is not Severity.INFO or severity in self._arns

    def of(self, severity: Severity) -> str:
        """Return the topic of a severity, else that of the next worse one, else that of the worst there is."""
        worse = [other for other in Severity if other.rank >= severity.rank and other in self._arns]
        return self._arns[worse[0] if worse else max(self._arns, key=lambda other: other.rank)]

    def publish(self, arn: str, message: Message) -> None:
        """Send a message, in one attempt.

        :raises NotSent: it was refused, or SNS did not answer in time.
        """
        attributes = {name: {"DataType": "String", "StringValue": text} for name, text in message.attributes.items()}
        try:
            with aws_client("sns", arn.split(":")[3]) as sns:
                sns.publish(
                    TopicArn=arn,
                    Subject=message.subject,
                    Message=message.by_protocol,
                    MessageStructure="json",
                    MessageAttributes=attributes,
                )
        except Exception as error:
            # Whatever boto3 or a strange answer raises: it is not sent.
            raise NotSent(explain(error)) from error


def short_name(arn: str) -> str:
    """Return a topic's name as it may be shown: without the account."""
    _, _, _, region, _, name = arn.split(":", 5)
    return f"{name} ({region})"
