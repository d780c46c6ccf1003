"""Values come back as they were, or are refused with a sentence that says where and why."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from flask.json.tag import TaggedJSONSerializer
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from flask_langpont_session.exceptions import SessionTooLarge, UnreadableValue, UnsupportedValue
from flask_langpont_session.policy.serializer import IMMUTABLE, MAX_DEPTH, check_key, decode, encode, is_same
from tests.support.values import (
    UNREADABLE,
    any_text,
    same,
)


def nested(levels: int, kind: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = kind(value)
    return value


offsets = st.integers(-86399, 86399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
keys = any_text | st.sampled_from(["@tuple", "@dict", "@bytes", "@json", "@int", "@", "@@dict", "a"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | keys
    | st.binary()
    | any_text.map(Markup)
    | st.uuids()
    | st.datetimes()
    | st.datetimes(timezones=offsets | st.just(UTC))
    | st.dates()
    | st.decimals()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=20,
)


@given(values)
def test_what_is_stored_comes_back_with_the_same_types_and_without_being_changed(value: Any) -> None:
    """Round trip of every supported type, nested anywhere, dicts that look like tags included."""
    before = repr(value)
    data = encode("key", value)
    assert same(decode(data), value)
    assert repr(value) == before
    assert encode("key", decode(data)) == data


@given(values, values)
def test_what_counts_as_the_same_is_equal_down_to_its_types(value: Any, other: Any) -> None:
    """A change inside of a value must not be overlooked: the short look may only say yes where the long one would."""
    assert same(value, other) or not is_same(value, encode("key", other))


@pytest.mark.parametrize(
    ("value", "other"),
    [
        ([1], [True]), ([1], [1.0]), ([0.0], [-0.0]), ([(1,)], [[1]]), (["a"], [b"a"]), (["a"], [Markup("a")]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ([date.min], ["0001-01-01"]), ([], {}),
    ],
)  # fmt: skip
def test_what_differs_in_a_type_or_the_order_of_keys_is_not_the_same(value: Any, other: Any) -> None:
    """Values are compared in either direction."""
    assert not is_same(value, encode("key", other))
    assert not is_same(other, encode("key", value))


@pytest.mark.parametrize("value", [[], {}, [1, 2.5, None, True, "é", ("a", [b"b"])], {"a": {"@tuple": [1]}}])
def test_plain_values_are_seen_to_be_the_same(value: Any) -> None:
    """Plain values are found equal to their stored form by the short comparison."""
    assert is_same(value, encode("key", value))


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Whatever another program wrote, the only error is UnreadableValue."""
    with suppress(UnreadableValue):
        decode(data)


TAGS = ["tuple", "dict", "bytes", "markup", "uuid", "datetime", "date", "decimal", "int", "float", "json", "x"]


@given(st.sampled_from(TAGS), values)
def test_a_tag_with_any_content_is_read_exactly_or_refused(tag: str, content: Any) -> None:
    """A hand-made tag that decodes encodes to the very same bytes: no second spelling is accepted."""
    data = b'{"@%s":%s}' % (tag.encode(), encode("key", content))
    try:
        value = decode(data)
    except UnreadableValue:
        return
    assert encode("key", value) == data


def test_fields_are_readable_json() -> None:
    """An operator who looks at the hash can read it; Japanese text is not escaped."""
    assert (
        encode("key", {"lang": "日本語", "n": [1, 2.5, None, True]})
        == '{"lang":"日本語","n":[1,2.5,null,true]}'.encode()
    )
    assert encode("key", (1, b"\x00")) == b'{"@tuple":[1,{"@bytes":"AA=="}]}'
    assert encode("key", {"@tuple": 1}) == b'{"@dict":{"@tuple":1}}'
    assert encode("key", {"@tuple": 1, "b": 2}) == b'{"@tuple":1,"b":2}'
    assert encode("key", [2**64, float("-inf")]) == b'[{"@int":"18446744073709551616"},{"@float":"-inf"}]'
    assert encode("key", "half \ud83d") == rb'{"@json":"\"half \\ud83d\""}'


def test_a_time_zone_comes_back_as_its_offset() -> None:
    """A named zone becomes a fixed offset: the same moment, the same clock face."""
    stored = datetime(2025, 7, 1, 12, 30, 15, 123456, tzinfo=ZoneInfo("Asia/Tokyo"))
    loaded = decode(encode("key", stored))
    assert loaded == stored
    assert loaded.tzinfo == timezone(timedelta(hours=9))
    assert type(loaded.tzinfo) is timezone


class Color(enum.StrEnum):
    RED = "red"


class Text:
    """A lazy translation that is no Markup: looks like a str, and is none."""

    def __str__(self) -> str:
        return "secret"


class Broken:
    """A value whose own code fails."""

    def __html__(self) -> str:
        raise RuntimeError("secret")


@dataclass
class Order:
    lines: set[str]


UNSUPPORTED = [
    {1, 2},
    Text(),
    Broken(),
    Order({"secret"}),
    Markup,
    enum.Enum("Plain", "SECRET").SECRET,  # type: ignore[attr-defined]
    bytearray(b"secret"),
    SimpleNamespace(a=1),
    time(1, 2),
    ValueError("secret"),
]


@pytest.mark.parametrize("value", UNSUPPORTED, ids=lambda value: type(value).__name__)
def test_what_flask_cannot_store_is_refused_by_name(value: Any) -> None:
    """An error that names key and type, not the value, however deep that is; nothing behind it quotes it."""
    for wrapped in (value, [value], {"a": (1, value)}):
        with pytest.raises(TypeError if type(value) is not Broken else RuntimeError):
            TaggedJSONSerializer().dumps(wrapped)
        with pytest.raises(UnsupportedValue) as caught:
            encode("cart", wrapped)
        said = str(caught.value)
        assert "session['cart']" in said and f"type {type(value).__qualname__} " in said and "secret" not in said
        assert caught.value.key == "cart"
        assert caught.value.__context__ is caught.value.__cause__ is None


def test_a_number_that_python_does_not_read_is_refused() -> None:
    """Flask fails on it, too: when it is set, not when it is read."""
    number = 10**5000
    for value in (number, [[number]], {number: 1}):
        with pytest.raises(UnsupportedValue):
            encode("key", value)


@pytest.mark.parametrize("key", [(1, 2), b"a", frozenset(), Text()], ids=lambda key: type(key).__name__)
def test_a_dict_key_that_json_has_not_is_refused(key: object) -> None:
    """The key is refused, as Flask refuses it."""
    with pytest.raises(UnsupportedValue, match=f"a dict key of type {type(key).__name__}"):
        encode("key", [{"b": 1, key: 2}])


def test_the_error_says_where_inside_the_value_without_quoting_keys() -> None:
    """The path leads to the culprit; keys of dicts may be names of people."""
    with pytest.raises(UnsupportedValue, match=r"type set is not supported, inside \[…\]\[1\]\[…\]; store an id"):
        encode("order", {"alice@example.org": [0, {"id": 1, "tags": {1}}]})


@pytest.mark.parametrize("kind", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: {"@t": v}])
def test_nesting_has_a_limit(kind: Callable[[Any], Any]) -> None:
    """Exactly as many levels as allowed are stored and come back; one more is too large."""
    deepest = nested(MAX_DEPTH, kind)
    assert same(decode(encode("key", deepest)), deepest)
    with pytest.raises(SessionTooLarge, match="nested too deeply"):
        encode("key", kind(deepest))


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_foreign_bytes_are_unreadable(data: bytes) -> None:
    """Bytes that the serializer cannot have written raise one error, whose text quotes nothing."""
    with pytest.raises(UnreadableValue) as caught:
        decode(data)
    assert caught.value.__context__ is None
    assert len(str(caught.value)) < 80


def test_valid_json_of_others_is_read() -> None:
    """Spaces, duplicate keys and objects with an "@" key among others are JSON, and harmless."""
    assert decode(b' {"a": 1, "a": 2} ') == {"a": 2}
    assert decode(b'{"@tuple":[],"b":1}') == {"@tuple": [], "b": 1}
    assert decode(b'"@tuple"') == "@tuple"


@pytest.mark.parametrize("key", ["user_id", "", "日本語", "a@b", "\0", "identity.id", Color.RED])
def test_any_other_text_is_a_session_key(key: str) -> None:
    """Keys are the application's, but for the first letter. Of an enumeration's the text is stored."""
    assert check_key(key) == key and type(check_key(key)) is str


@pytest.mark.parametrize("key", [1, None, b"a", ("a",), "@d", "@", "\ud800"], ids=repr)
def test_other_session_keys_are_refused(key: object) -> None:
    """No text, or a name that the package keeps for itself."""
    with pytest.raises(UnsupportedValue):
        check_key(key)


def test_what_can_change_in_place_is_mutable() -> None:
    """A tuple counts: it may hold a list."""
    assert IMMUTABLE.isdisjoint(map(type, ([], {}, (), ([],))))
    assert IMMUTABLE.isdisjoint(map(type, (OrderedDict(), Broken(), Order(set()))))
    immutable = (None, True, 1, 1.5, "a", b"a", Markup("a"), UUID(int=1), date.min, datetime.min, Decimal(1))
    assert IMMUTABLE.issuperset(map(type, immutable))
