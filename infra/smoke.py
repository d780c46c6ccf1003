"""What works in an account of AWS, in one page: run it from a host of the application, with its role.

    python infra/smoke.py --url "elasticache://USER@GROUP?region=REGION" --topic ARN
    python infra/smoke.py --url "elasticache+serverless://CACHE?region=REGION&token_secret=ARN"

It needs ``flask-langpont-session[aws]``, and asks and does what the extension would: it describes the group, signs or
reads a token, connects, and tries the commands. What it writes: one figure of the service "smoke" to CloudWatch, one
message to the topic, if one is named, and two keys that end after a minute. Nothing of an application is touched.

**The project itself never ran it against AWS.** Its tests run it against moto and a local Valkey behind TLS; so all
that only AWS can tell (does it accept the signature, does the cache know ``CLIENT TRACKING``, which server answers) is
open until it was run there. Exit code 1: something does not work that the extension needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import click
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flask_langpont_session.aws import client as aws
from flask_langpont_session.aws.cloud import credentials_in
from flask_langpont_session.aws.credentials import Credentials
from flask_langpont_session.aws.endpoints import Endpoints, describe
from flask_langpont_session.ops.exporters import catalogue
from flask_langpont_session.stores.redis.url import GroupName, Kind, kind_of, read_group

SECONDS = 60
"""For which the keys live that it writes."""

PATIENCE = 5.0
"""Seconds for a connection and for each answer."""

SCRIPT = "return redis.call('HSET', KEYS[1], 'field', ARGV[1])"

REFUSED = (("CONFIG", "GET", "maxmemory"), ("ACL", "LIST"))
"""What nothing on this host needs, and a leaked token should not be able to do."""


class Finding(NamedTuple):
    """:param state: ``ok``, ``failed`` (the extension needs it), ``without`` (it does without) or ``skipped``."""

    what: str
    state: str
    text: str


class Failure(Exception):
    """Something does not work, in words."""


Check = Callable[[], str]


class Smoke:
    """The checks, in the order in which one needs what the one before found.

    :param name: which group or cache.
    :param credentials: what to greet with; None: nothing.
    """

    def __init__(self, name: GroupName, credentials: Credentials | None, options: argparse.Namespace) -> None:
        self._name = name
        self._credentials = credentials
        self._options = options
        self._endpoints: Endpoints | None = None
        self._client: Any = None
        self._key = f"{options.key_prefix}:smoke:{{smoke}}"

    def run(self) -> Iterator[Finding]:
        """Each check as it ends."""
        try:
            yield self._try("keys of AWS", self._who)
            yield self._try("describe", self._describe)
            yield self._try("metrics", self._metrics)
            yield self._try("alert", self._alert) if self._options.topic else _skipped("alert", "no --topic")
            yield self._try("token", self._token) if self._credentials else _skipped("token", "none in --url")
            if self._endpoints is None:
                yield _skipped("cache", "it was not found")
                return
            yield self._try("greeting", self._greet)
            if self._client is None:
                yield _skipped("commands", "the cache did not let us in")
                return
            yield self._try("rights", self._rights)
            yield self._try("EVALSHA", self._script)
            yield self._try("no more rights", self._no_more, needed=False)
            yield self._try("tracking", self._tracking, needed=False)
            yield self._try("identity", self._identity, needed=False)
        finally:
            if self._client is not None:
                self._client.close()

    def _try(self, what: str, check: Check, *, needed: bool = True) -> Finding:
        try:
            return Finding(what, "ok", check())
        except Failure as error:
            text = str(error)
        except redis.RedisError as error:
            text = f"{type(error).__name__}: {error}"
        except Exception as error:  # whatever boto3 raises
            text = aws.explain(error)
        return Finding(what, "failed" if needed else "without", text)

    def _who(self) -> str:
        with aws.aws_client("sts", self._name.region) as sts:
            return str(sts.get_caller_identity()["Arn"].rpartition(":")[2])

    def _describe(self) -> str:
        found = self._endpoints = describe(self._name)
        place = f"primary {found.primary}" if found.primary else f"cluster {found.configuration}"
        return f"{place}, reader {found.reader or 'none'}, TLS {'on' if found.tls else 'off'}"

    def _metrics(self) -> str:
        dimensions = [{"Name": "Environment", "Value": "smoke"}, {"Name": "Service", "Value": "smoke"}]
        datum = {"MetricName": catalogue.HEARTBEAT.name, "Dimensions": dimensions, "Value": 1, "Unit": "Count"}
        with aws.aws_client("cloudwatch", self._name.region) as cloudwatch:
            cloudwatch.put_metric_data(Namespace=catalogue.NAMESPACE, MetricData=[datum])
        return f"one {catalogue.HEARTBEAT.name} of service smoke in {catalogue.NAMESPACE}"

    def _alert(self) -> str:
        topic = self._options.topic
        with aws.aws_client("sns", topic.split(":")[3]) as sns:
            sns.publish(TopicArn=topic, Subject="[TEST] smoke", Message="infra/smoke.py was run. Nothing is wrong.")
        return "one message; did it arrive?"

    def _token(self) -> str:
        credentials = self._credentials
        assert credentials is not None
        credentials.query.ask()
        if not credentials.known:
            raise Failure(str(credentials.query.problem))
        *user, token = credentials.get_credentials()
        return f"{len(token)} characters for {user[0] if user else 'the default user'}"

    def _greet(self) -> str:
        assert self._endpoints is not None
        client = self._connect()
        try:
            client.set(self._key, "1", ex=SECONDS)
        except redis.exceptions.MovedError as moved:
            client.close()
            client = self._connect(moved.host, moved.port)
            client.set(self._key, "1", ex=SECONDS)
        self._client = client
        return f"{client.connection_pool.connection_kwargs['host']} wrote a key"

    def _connect(self, host: str = "", port: int = 0) -> Any:
        found = self._endpoints
        assert found is not None
        place = found.primary or found.configuration
        assert place is not None
        options: dict[str, Any] = {"credential_provider": self._credentials} if self._credentials else {}
        if found.tls:
            options |= {"ssl": True, "ssl_ca_certs": self._options.ca_file, "ssl_cert_reqs": "required"}
        elif self._credentials:
            raise Failure("the group has no encryption in transit, so the token is not sent")
        return redis.Redis(
            host=host or place.host, port=port or place.port, protocol=3, decode_responses=True,
            socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, retry=Retry(NoBackoff(), 0), **options,
        )  # fmt: skip

    def _rights(self) -> str:
        client, key = self._client, f"{self._key}:hash"
        tries: list[tuple[Any, ...]] = [
            ("HSET", key, "field", "1"), ("PEXPIRE", key, SECONDS * 1000), ("HGETALL", key), ("HDEL", key, "none"),
            ("INFO", "server"), ("INFO", "replication"), ("TIME",), ("DEL", f"{self._key}:none"),
        ]  # fmt: skip
        if self._endpoints is not None and self._endpoints.configuration:
            tries += [("CLUSTER", "SLOTS"), ("CLUSTER", "INFO")]
        missing = []
        for command in tries:
            try:
                client.execute_command(*command)
            except redis.ResponseError:
                missing.append(" ".join(str(word) for word in command[:2] if word != key))
        if missing:
            raise Failure(f"refused: {', '.join(missing)}")
        return f"{len(tries)} commands of the extension"

    def _script(self) -> str:
        digest = self._client.script_load(SCRIPT)
        self._client.evalsha(digest, 1, f"{self._key}:hash", "2")
        self._client.pexpire(f"{self._key}:hash", SECONDS * 1000)
        return "a script was loaded and run"

    def _no_more(self) -> str:
        allowed = []
        for command in REFUSED:
            try:
                self._client.execute_command(*command)
            except redis.ResponseError:
                continue
            allowed.append(command[0])
        if allowed:
            raise Failure(f"allowed, and not needed: {', '.join(allowed)}")
        return "CONFIG and ACL are refused"

    def _tracking(self) -> str:
        connection = self._client.connection_pool.get_connection()
        try:
            connection.send_command("CLIENT", "TRACKING", "ON", "NOLOOP")
            connection.read_response()
        except redis.ResponseError as error:
            raise Failure(f"no near cache, each read asks the cache: {error}") from None
        finally:
            connection.disconnect()
            self._client.connection_pool.release(connection)
        return "the near cache can be used"

    def _identity(self) -> str:
        seen = set()
        for _ in range(3):
            self._client.connection_pool.disconnect()
            seen.add(str(self._client.info("server").get("run_id")))
        if len(seen) > 1 or seen == {"None"}:
            raise Failure(
                "each connection is to another server, or to one that does not say: sessions are verified more often"
            )
        return "three connections, one server"


def _skipped(what: str, why: str) -> Finding:
    return Finding(what, "skipped", why)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page. The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="as LANGPONT_SESSION_REDIS_URL: elasticache://…")
    parser.add_argument("--topic", help="ARN of a topic of LANGPONT_SESSION_ALERT_TOPICS; gets a message")
    parser.add_argument("--key-prefix", default="session", help="as LANGPONT_SESSION_KEY_PREFIX")
    parser.add_argument("--ca-file", help="certificates to trust, instead of those of the system")
    options = parser.parse_args(arguments)
    try:
        name = read_group(options.url)
    except ValueError as error:
        parser.error(f"--url: {error}")
    if kind_of(options.url) is not Kind.GROUP:
        parser.error("--url: an elasticache:// URL, as AWS is to be asked")
    aws.load()
    failed = False
    click.echo(f"{name}, region {name.region or aws.known_region() or 'unknown'}")
    for finding in Smoke(name, credentials_in(options.url, "--url"), options).run():
        failed = failed or finding.state == "failed"
        click.echo(f"{finding.state:8} {finding.what:15} {finding.text}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
