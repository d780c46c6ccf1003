"""Values that Flask's own sessions take are taken, and come back as they do there."""

from __future__ import annotations

import enum
import json
import uuid
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider
from flask.json.tag import TaggedJSONSerializer
from markupsafe import Markup
from werkzeug.datastructures import CombinedMultiDict, ImmutableMultiDict, MultiDict

from flask_langpont_session.exceptions import UnsupportedValue
from flask_langpont_session.policy.serializer import decode, encode
from tests.support.values import same


def by_flask(value: Any) -> Any:
    """The value as Flask's own session has it in the next request."""
    serializer = TaggedJSONSerializer()
    return serializer.loads(serializer.dumps(value))


def by_us(value: Any) -> Any:
    return decode(encode("key", value))


class Colour(enum.StrEnum):
    RED = "red"


class OldColour(str, enum.Enum):  # noqa: UP042 - its members are texts of another kind than those of a StrEnum
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Share(float, enum.Enum):
    HALF = 0.5


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


class Text(str):
    def __str__(self) -> str:
        return "something else"


class Number(int):
    def __repr__(self) -> str:
        return "a number"


class Bytes(bytes):
    def __bytes__(self) -> bytes:
        return b"something else"


class Id(uuid.UUID):
    def __str__(self) -> str:
        return "an id"


class Moment(datetime):
    """A subclass of datetime with an ``isoformat`` of its own, as of pendulum and freezegun."""

    def isoformat(self, *_: Any, **__: Any) -> str:
        return "now"


class Html:
    def __init__(self, text: str) -> None:
        self.text = text

    def __html__(self) -> str:
        return self.text


class HtmlText(str):
    def __html__(self) -> str:
        return "<b>bold</b>"


class LazyString:
    """The part that matters of ``flask_babel.speaklater.LazyString`` (4.0)."""

    def __init__(self, function: Callable[[], str]) -> None:
        self._function = function

    def __getattr__(self, name: str) -> Any:
        return getattr(str(self), name)

    def __str__(self) -> str:
        return self._function()

    def __html__(self) -> str:
        return str(self)


class UserInfo(dict[str, Any]):
    """A dict like ``authlib.oidc.core.UserInfo`` (1.9)."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class OAuth2Token(dict[str, Any]):
    """A dict with attributes of its own like ``oauthlib.oauth2.OAuth2Token`` (4.0), which Flask-Dance stores."""

    def __init__(self, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._new_scope = set(params["scope"])


Pair = namedtuple("Pair", "a b")


@dataclass
class Line:
    article: str
    price: Decimal = Decimal("1.50")
    made: date = date(2025, 1, 2)
    name: Markup = Markup("<i>")
    place: tuple[int, int] = (1, 2)


@dataclass
class Order:
    number: int
    lines: list[Line] = field(default_factory=list)
    tag: dict[str, Any] = field(default_factory=lambda: {"@tuple": [1]})


SUBCLASSES = [
    OrderedDict(b=1, a=2),
    defaultdict(list, a=[1]),
    Counter("abba"),
    MultiDict([("a", "1"), ("a", "2"), ("b", "3")]),
    ImmutableMultiDict([("a", "1"), ("a", "2")]),
    CombinedMultiDict([MultiDict({"a": "1"}), MultiDict({"b": "2"})]),
    UserInfo(sub="248289761001", email_verified=True),
    OAuth2Token({"access_token": "x", "scope": ["a", "b"], "expires_at": 1.5}),
    Colour.RED,
    OldColour.RED,
    Level.LOW,
    Share.HALF,
    Rights.READ | Rights.WRITE,
    Text("text"),
    Number(7),
    Number(2**70),
    Bytes(b"bytes"),
    Pair(1, [Pair(2, 3)]),
    Id(int=7),
    Moment(2025, 7, 1, 12, 30, tzinfo=UTC),
    Html("<b>"),
    HtmlText("plain"),
    LazyString(lambda: "こんにちは"),
    Order(7, [Line("a"), Line("b")]),
    {1: "a", 2.5: "b", False: "c", None: "d", "e": "f"},
    {1: "a", "1": "b"},
    {Level.LOW: 1, Colour.RED: 2, OldColour.RED: 3},
    {float("nan"): 1, float("inf"): 2, -0.0: 3, 2**70: 4},
    {" t": [1]},
    {" di": {" t": 1}},
    2**63,
    -(2**63),
    -(10**4000),
    float("nan"),
    float("-inf"),
    "half an emoji: \ud83d",
    {"\ud800": Markup("\udfff"), "b": (b"", {"@tuple": "\ud800"})},
]


@pytest.mark.parametrize("value", SUBCLASSES, ids=lambda value: type(value).__name__)
def test_it_comes_back_as_from_flask(value: Any) -> None:
    """By name: each type that applications and their libraries are known to put into sessions, however deep."""
    before = repr(value)
    for wrapped in (value, [value], {"a": (1, value)}):
        assert same(by_us(wrapped), by_flask(wrapped))
    assert repr(value) == before


@pytest.mark.parametrize(
    "value",
    [
        datetime(2025, 7, 1, 12, 30, 15, 123456),
        datetime(2025, 7, 1, 12, 30, 15, 123456, timezone(timedelta(hours=9))),
        date(2025, 7, 1),
        Decimal("1.50"),
        Decimal("NaN"),
        Decimal("-Infinity"),
    ],
    ids=str,
)
def test_three_types_are_kept_more_exactly_than_by_flask(value: Any) -> None:
    """There a datetime loses its fraction and its zone, a date and a Decimal become text."""
    assert not same(by_flask([value]), [value])
    assert same(by_us([value]), [value])


def test_a_moment_of_an_odd_offset_stays_the_same_moment() -> None:
    """No zone has a fraction of a second; what has one is kept in UTC, as Flask keeps every datetime."""
    odd = datetime(2025, 7, 1, 12, 30, tzinfo=timezone(timedelta(microseconds=1)))
    assert by_us(odd) == odd
    assert by_us(odd).tzinfo == UTC
    with pytest.raises(UnsupportedValue, match="a datetime that is in no year of UTC"):
        encode("key", datetime.max.replace(tzinfo=timezone(-timedelta(microseconds=1))))


def test_an_application_s_own_json_counts() -> None:
    """Values that its provider turns into JSON are stored as that, as by Flask's session."""

    class Provider(DefaultJSONProvider):
        @staticmethod
        def default(value: Any) -> Any:
            return sorted(value) if isinstance(value, set) else DefaultJSONProvider.default(value)

    app = Flask("app")
    app.json = Provider(app)
    with app.app_context():
        assert by_us({"tags": {2, 1}}) == by_flask({"tags": {2, 1}}) == {"tags": [1, 2]}
    with pytest.raises(UnsupportedValue):
        encode("key", {2, 1})


def test_what_is_stored_is_json_for_every_reader() -> None:
    """Values that JSON cannot say are written so that any reader of JSON can read around them."""
    for value in SUBCLASSES:
        json.loads(encode("key", value), parse_constant=pytest.fail)
