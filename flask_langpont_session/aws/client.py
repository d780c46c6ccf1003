"""Calls to AWS that cannot hang, and their errors in words.

boto3 is an extra and imported inside the functions. A call is tried once, in the background: its caller knows
when to try again.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXTRA = 'pip install "flask-langpont-session[aws]"'

CONNECT_TIMEOUT, READ_TIMEOUT = 1.0, 1.5
"""Seconds, the second for a whole answer. boto3's own defaults wait for minutes where nothing answers."""

_BY_CODE = {
    "ReplicationGroupNotFoundFault": "there is none of this name in this account and region",
    "ServerlessCacheNotFoundFault": "there is none of this name in this account and region",
    "ResourceNotFoundException": "there is none of this name in this account and region",
    "AccessDenied": "the role of this host is not allowed to ask for it",
    "AccessDeniedException": "the role of this host is not allowed to ask for it",
    "DecryptionFailure": "the role of this host is not allowed to use its KMS key",
    "NotFound": "there is none of this name in this account and region",
    "AuthorizationError": "the role of this host is not allowed to publish there",
    "KMSAccessDenied": "the role of this host is not allowed to use its KMS key",
}
_CODE = re.compile(r"[A-Za-z0-9.:_-]{1,80}")


class Unusable(Exception):
    """AWS answered, and the answer is none that this package can work with.

    :param problem: what is wrong and what to do, in words for an operator; without secrets.
    """

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


def is_installed() -> bool:
    """Return whether boto3 is there, without importing it."""
    return importlib.util.find_spec("boto3") is not None


def known_region() -> str | None:
    """Return the region of the environment or of boto3's files; None: there is none, or the files cannot be read."""
    from botocore.exceptions import BotoCoreError

    try:
        region: str | None = make_session(None).region_name
    except BotoCoreError:
        return None
    return region


def load() -> None:
    """Import boto3 here and now, at start. Else a thread would, whose lock on a module a child that is forked meanwhile
    would inherit without a thread to open it; and a request's thread would wait for the import before it can sign.
    """
    for name in ("boto3.session", "botocore.config", "botocore.exceptions", "botocore.signers"):
        importlib.import_module(name)
    importlib.import_module(".answers", __package__)


def make_session(region: str | None) -> Any:
    """Return a session of boto3, with its own keys. Its answers end in time, and so do those to the questions that
    boto3 asks by itself for keys of a role.

    :param region: None: as boto3 finds it, else that of ``AWS_REGION``, which boto3 does not read.
    """
    from boto3.session import Session

    from .answers import BoundedSession

    inner = BoundedSession()
    inner.set_default_client_config(_bounds())
    known = region or inner.get_config_variable("region") or os.environ.get("AWS_REGION")
    return Session(region_name=known, botocore_session=inner)


@contextmanager
def aws_client(service: str, region: str | None) -> Iterator[Any]:
    """Yield a client for one question. Made anew each time: sockets and locks of an old one would not survive a fork.

    :param region: see :func:`make_session`.
    """
    client = make_session(region).client(service)
    try:
        yield client
    finally:
        client.close()


def _bounds() -> Any:
    from botocore.config import Config

    return Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"total_max_attempts": 1, "mode": "standard"},
    )


def explain(error: Exception) -> str:
    """Return in words for an operator what went wrong. The error's own text is left out: it may quote what was
    asked."""
    from botocore import exceptions as aws

    if isinstance(error, Unusable):
        return error.problem
    if isinstance(error, aws.NoRegionError):
        return "no region is known; add ?region=… to the elasticache:// URL or set AWS_DEFAULT_REGION"
    if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError)):
        return "there are no AWS credentials; give the host or task a role"
    if isinstance(error, aws.ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        shown = code if _CODE.fullmatch(code) else "an error without a code"
        return f"{_BY_CODE.get(code, 'AWS refuses')} ({shown})"
    return f"AWS does not answer as it should ({type(error).__name__})"
