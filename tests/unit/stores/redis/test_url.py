"""URLs of Redis, and what they say."""

from __future__ import annotations

import pytest

from flask_langpont_session.stores.redis.slots import Address
from flask_langpont_session.stores.redis.url import (
    GroupName,
    HostsUrl,
    Kind,
    for_redis_py,
    has_credentials,
    has_tls,
    iam_user_of,
    kind_of,
    options_of,
    read_cluster,
    read_group,
    read_sentinel,
    secret_of,
)


@pytest.mark.parametrize(
    ("url", "kind", "tls"),
    [
        ("redis://h", Kind.SERVER, False),
        ("valkeys://h/0", Kind.SERVER, True),
        ("unix:///run/valkey.sock", Kind.SERVER, False),
        ("valkey+sentinel://h/service", Kind.SENTINEL, False),
        ("rediss+cluster://h1,h2", Kind.CLUSTER, True),
        ("elasticache://group-id", Kind.GROUP, True),
        ("elasticache+serverless://cache-name", Kind.GROUP, True),
        ("REDIS://h", None, False),
        ("", None, False),
        (None, None, False),
    ],
)
def test_a_scheme_says_what_a_url_names(url: str | None, kind: Kind | None, tls: bool) -> None:
    """The scheme also says whether the servers speak TLS."""
    assert (kind_of(url), has_tls(url)) == (kind, tls)


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("redis://h1/0?client_name=a@b", False),
        ("redis://:pw@h1/0", True),
        ("unix://:pw@/run/valkey.sock", True),
        ("rediss+sentinel://h1,[::1]:26379/service", False),
        ("rediss+sentinel://u:p%40@h1,[::1]:26379/service", True),
        ("elasticache://group-id", False),
    ],
)
def test_credentials_are_found_in_every_kind(url: str, there: bool) -> None:
    """Credentials are found also where an address in brackets is not the first host, which the standard library
    calls no URL."""
    assert has_credentials(url) is there


def test_options_are_all_there() -> None:
    """Options are there as often as they are given, and what is empty; what follows a ``#`` is none."""
    assert options_of("redis+sentinel://h1,h2/s?db=1&db=&client_name=w") == (
        {"db": ["1", ""], "client_name": ["w"]},
        False,
    )
    assert options_of("redis://h#x?db=1") == ({}, True)


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("valkeys://valkey:6379", "rediss://valkey:6379"),
        ("unix:///valkey", "unix:///valkey"),
        ("rediss://h/0?token_secret=app/token", "rediss://h/0"),
        ("valkeys://h?db=1&token%5Fsecret=a&client_name=w", "rediss://h?db=1&client_name=w"),
    ],
)
def test_redis_py_is_given_a_scheme_that_it_knows(url: str, known: str) -> None:
    """The rest stays as it is, but for the option that is for AWS."""
    assert for_redis_py(url) == known


@pytest.mark.parametrize(
    ("url", "user", "secret"),
    [
        ("elasticache://app-user@group-id?region=eu-west-1", "app-user", None),
        ("elasticache+serverless://app-user@cache?token_secret=", "app-user", ""),
        ("elasticache://app-user:pa55word@group-id", None, None),
        ("elasticache://:pa55word@group-id", None, None),
        ("elasticache://group-id?token_secret=app/token", None, "app/token"),
        ("rediss://app-user@h/0?db=1&token_secret=arn:aws:secretsmanager:eu-west-1:1:secret:a", None,
         "arn:aws:secretsmanager:eu-west-1:1:secret:a"),
        (None, None, None),
    ],
)  # fmt: skip
def test_a_url_says_how_aws_signs_in(url: str | None, user: str | None, secret: str | None) -> None:
    """By IAM, as the user of a group's URL that has no password; or with what a secret holds."""
    assert (iam_user_of(url), secret_of(url)) == (user, secret)


# -- several hosts -----------------------------------------------------------------------------------------------------


def test_the_url_of_a_service_in_full() -> None:
    """Every part of it, with what a URL has to escape."""
    url = (
        "rediss+sentinel://u%3A:p%40ss%23@h1:7000,h2,[::1]:7002/my-master.1?db=1&client_name=web&sentinel_password=s%23"
    )
    assert read_sentinel(url) == HostsUrl(
        (Address("h1", 7000), Address("h2", 26379), Address("::1", 7002)),
        service="my-master.1",
        tls=True,
        options={"username": "u:", "password": "p@ss#", "db": 1, "client_name": "web"},
        sentinel_options={"password": "s#"},
    )


def test_what_the_url_of_a_cluster_says() -> None:
    """Seeds with and without ports, credentials, TLS by the scheme."""
    place = read_cluster("valkeys+cluster://u:p%40@a,b:7000,[::1]:7001/0?ssl_ca_certs=x")
    assert place.hosts == (("a", 6379), ("b", 7000), ("::1", 7001))
    assert place.tls
    assert place.options == {"username": "u", "password": "p@", "ssl_ca_certs": "x"}
    assert not read_cluster("redis+cluster://a").tls


# -- a group that AWS knows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("elasticache://sessions", GroupName("sessions")),
        ("elasticache://Sessions-1/", GroupName("sessions-1")),
        ("elasticache://s/3", GroupName("s", None, 3)),
        ("elasticache://app:pa55word@s?max_connections=5", GroupName("s")),
        ("elasticache://app-user@s?token_secret=app/token", GroupName("s")),
        ("elasticache://s?region=ap-northeast-1&db=2", GroupName("s", "ap-northeast-1", 2)),
        (f"elasticache://{'a' * 40}", GroupName("a" * 40)),
        ("elasticache+serverless://Sessions", GroupName("sessions", serverless=True)),
        ("elasticache+serverless://s/0?region=eu-west-1", GroupName("s", "eu-west-1", serverless=True)),
    ],
)
def test_a_url_names_a_group(url: str, name: GroupName) -> None:
    """Its id in lower case, as AWS keeps it; region and database if they are given."""
    assert read_group(url) == name


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("elasticache://", "id of the group or cache"),
        ("elasticache://two--hyphens", "id of the group or cache"),
        ("elasticache://grüppe", "id of the group or cache"),
        (f"elasticache://{'a' * 41}", "id of the group or cache"),
        ("elasticache://group:6379", "id of the group or cache"),
        ("elasticache://master.group.x.apne1.cache.amazonaws.com", "id of the group or cache"),
        *(
            (f"elasticache://{user}@group", "one that IAM signs in")
            for user in ("", "1st-pa55word", "two--pa55word", "end-", "under_score", "App-User", "ユーザー", "a" * 41)
        ),
        ("elasticache://group/zero", "number of a database"),
        ("elasticache://group?db=", "number of a database"),
        ("elasticache://group?region=tokyo", "name of an AWS region"),
        ("elasticache://group?region=http://evil/", "name of an AWS region"),
        ("elasticache://group?region=eu-west-1&region=eu-west-2", "each once"),
        ("elasticache://group?socket_timeout=5", "its options can be db, "),
        ("elasticache://[group", "not a URL"),
        ("elasticache+serverless://cache/1", "one database, number 0"),
    ],
)
def test_a_url_that_names_no_group_is_explained(url: str, says: str) -> None:
    """The explanation quotes nothing of the URL."""
    with pytest.raises(ValueError, match=says) as caught:
        read_group(url)
    assert "pa55word" not in str(caught.value)
