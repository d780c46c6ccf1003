"""``flask langpont iam-token``: a password for other clients of a cache that is signed in to by IAM."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from flask.cli import with_appcontext

from ...extension import state_of
from ...stores.redis.url import iam_user_of, secret_of


@click.command("iam-token")
@click.option("--pipe", is_flag=True, help="Print it where standard output is no terminal, too.")
@with_appcontext
def iam_token(pipe: bool) -> None:
    """Print a token to sign in with as the user that an elasticache:// URL names, signed with the keys of this host: a
    password for 15 minutes. Standard output has nothing else; how long it is good for is said on standard error."""
    settings = state_of().settings
    if not iam_user_of(settings.redis_url) or secret_of(settings.redis_url):
        raise click.ClickException(
            "LANGPONT_SESSION_REDIS_URL names no user that IAM signs in, as elasticache://user@group-id does"
        )
    if not pipe and not sys.stdout.isatty():
        raise click.ClickException(
            "standard output is no terminal, and a token does not belong into a log; to hand it to a program, as in "
            '--pass "$(flask langpont iam-token --pipe)", say --pipe'
        )
    from ...aws.cloud import cloud_of
    from ...aws.credentials import SIGNATURE_LIFE

    credentials: Any = cloud_of(settings).credentials
    credentials.query.ask()
    if not credentials.known:
        raise click.ClickException(f"{credentials.query.subject}: {credentials.query.problem}")
    end = datetime.now(UTC) + timedelta(seconds=SIGNATURE_LIFE)
    user, token = credentials.get_credentials()
    click.echo(f"For user {user}, good for new connections until {end:%H:%M:%S} UTC. It is a password.", err=True)
    click.echo(token)
