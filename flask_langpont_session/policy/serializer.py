"""Session value ↔ field: UTF-8 JSON, with tags for what JSON cannot say, so that types come back exactly.

Kept: None, bool, int, float, str, list, dict with str keys, and by tag tuple, bytes, Markup, UUID, datetime, date,
Decimal. Everything else comes back as Flask's own sessions bring it back (:class:`flask.json.tag.TaggedJSONSerializer`
is the reference): a subclass as its base class (an enum member, a namedtuple, ``request.args``), an object with
``__html__`` (a lazy translation) as Markup, a dict key that is a number as text, a dataclass as a dict. What Flask
cannot store is refused when it is set. datetime, date and Decimal are kept more exactly than Flask keeps them.

A tag is an object with one key that begins with "@": ``{"@tuple": [1, 2]}``. An application's dict that looks like one
is wrapped: ``{"@dict": {"@tuple": 1}}``.
"""

from __future__ import annotations

import json
import marshal
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from typing import Any
from uuid import UUID

import msgspec
from flask import json as flask_json
from markupsafe import Markup

from ..exceptions import SessionTooLarge, SessionValueError, UnreadableValue, UnsupportedValue
from .categories import MOST_KEYS

INT_LIMIT = 2**63
"""Integers from here on are written as text: Redis counts in 64 bits, and so does most that reads JSON."""

_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder().decode
_STR = frozenset({str})
IMMUTABLE = frozenset({type(None), bool, int, float, str, bytes, Markup, UUID, datetime, date, Decimal})
"""Types of values that cannot change without being assigned again. All others can: a list or dict, a tuple, which may
hold one, and whatever is stored as something else than it is."""

_ESCAPED = "@json"

_EXACT = 2
"""The version of marshal's format in which equal values have equal bytes: it neither counts references nor asks which
strings are interned, and has floats to the last bit."""


class _WrongValue(Exception):
    """A value cannot be stored. Raised before it is known where in the session the value stands."""

    def __init__(self, reason: str, error: type[SessionValueError] = UnsupportedValue) -> None:
        self.reason = reason
        self.error = error
        self.path: list[object] = []  # innermost first

    def error_for(self, key: str) -> SessionValueError:
        # A cycle leaves a path as long as the depth limit; its beginning says where to look. The keys of a dict may be
        # names or addresses of people: they stand in no message.
        steps = [f"[{step}]" if type(step) is int else "[…]" for step in reversed(self.path)]
        path = "".join(steps[:8]) + ("…" if len(steps) > 8 else "")
        return self.error(key, self.reason, path)


MAX_DEPTH = 32
"""Lists, dicts and tuples allowed inside each other."""


def encode(key: str, value: object) -> bytes:
    """Return the field for a session value.

    :param key: the session key, for the error only.
    :raises UnsupportedValue: Flask's serializer cannot store it either. Says where and which type, never the value.
    :raises SessionTooLarge: nested deeper than MAX_DEPTH, or containing itself.
    """
    kind = type(value)
    try:
        form = value
        if not (kind is str or kind is bool or value is None):
            form = _WRITERS.get(kind, _as_flask)(value, MAX_DEPTH)
        return b"%b" % _to_json(form)  # msgspec's own bytes may have half as much room again, which a worker would keep
    except UnicodeEncodeError:
        return _to_json({_ESCAPED: _escaped(form)})
    except _WrongValue as refused:
        error = refused.error_for(key)
    # Outside the handlers, so that no driver error that quotes the value hangs on ours.
    raise error


def is_readable(data: bytes) -> bool:
    """Return whether :func:`decode` can read a field."""
    try:
        decode(data)
    except UnreadableValue:
        return False
    return True


def decode(data: bytes) -> Any:
    """Return the session value of a field.

    Of an object's duplicate keys the last counts, and numbers or nesting beyond what :func:`encode` accepts are read
    as they are, as long as the JSON is valid: only the writer needs those limits.
    A datetime with an offset comes back with a :class:`datetime.timezone` of that offset, whatever class its tzinfo
    had; `fold` is not kept.

    :raises UnreadableValue: not JSON in UTF-8, or a tag that :func:`encode` does not write.
    """
    try:
        value = _from_json(data)
        if b'"@' not in data:
            return value
        # The bytes of a tag's name; they also occur where a str begins with "@", which costs a walk for nothing.
        return _restored(_unescaped(value[_ESCAPED]) if _is_escaped(value) else value)
    except UnreadableValue:
        raise
    except RecursionError:
        reason = "nested too deeply"
    except (msgspec.MsgspecError, ValueError):
        reason = "not JSON in UTF-8"
    raise UnreadableValue(reason)


def is_same(value: Any, data: bytes) -> bool:
    """Return True if a value equals what :func:`decode` gives of a field, down to the types of its parts; False if that
    is not known. Both are walked through in C: to compare encodings takes a step of Python for each part."""
    try:
        return marshal.dumps(value, _EXACT) == marshal.dumps(decode(data), _EXACT)
    except (ValueError, UnreadableValue):  # it holds something else than Python's own plain types
        return False


def check_key(key: object) -> str:
    """Return the key, if a session can have it.

    :raises UnsupportedValue: not a str, not text, or beginning with "@" (those fields are the package's own).
    """
    if not isinstance(key, str):
        raise UnsupportedValue(key, f"a session key is a str, not {type(key).__qualname__}")
    return _checked_text(key)


@lru_cache(MOST_KEYS)
def _checked_text(key: str) -> str:
    if key.startswith("@"):
        raise UnsupportedValue(key, 'keys that begin with "@" are reserved')
    if not key.isascii() and has_lone_surrogate(key):
        raise UnsupportedValue(key, "a key with a lone surrogate, which is not text")
    return str.__str__(key)  # of a StrEnum its text


def has_lone_surrogate(text: str) -> bool:
    """Return whether a text has half of a character, as browsers cut an emoji: UTF-8 has no form for that."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


# -- writing: what msgspec would encode wrongly is replaced, all else stays the object it is ------------------------


def _as_flask(value: Any, left: int) -> Any:
    """Return the form of a value whose type is none of ours."""
    try:
        plain = _plain(value)
    except Exception as error:  # the application's own code, or Flask's JSON, which says TypeError
        why = "" if isinstance(error, TypeError) else f" ({type(error).__qualname__})"
        raise _WrongValue(f"type {type(value).__qualname__} is not supported{why}") from None
    return _WRITERS[type(plain)](plain, left)


def _plain(value: Any) -> Any:
    """Return what Flask's serializer stores instead, tried in the same order, as an object of one of our types.

    :raises Exception: it cannot store it.
    """
    if isinstance(value, dict):
        return dict(value.items())  # of a MultiDict the first value of each key
    if isinstance(value, tuple):
        return tuple(value)
    if isinstance(value, list):
        return list(value)
    if isinstance(value, bytes):
        return bytes(memoryview(value))
    if callable(getattr(value, "__html__", None)):
        return Markup(str(value.__html__()))
    for base, of_base in _OF_BASE:
        if issubclass(type(value), base):
            return of_base(value)
    return flask_json.loads(flask_json.dumps(value))


_OF_BASE: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (UUID, lambda value: UUID(int=value.int)),
    (datetime, lambda value: datetime.fromisoformat(_datetime_text(value))),
    (date, lambda value: date.fromisoformat(date.isoformat(value))),
    (Decimal, Decimal),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)
"""Base class → its own object of a subclass, whatever that overrides."""


def _int(value: int, left: int) -> int | dict[str, str]:
    return value if -INT_LIMIT < value < INT_LIMIT else {"@int": _int_text(value)}


def _float(value: float, left: int) -> float | dict[str, str]:
    return value if isfinite(value) else {"@float": _float_text(value)}


def _list(value: list[Any], left: int) -> list[Any]:
    if changed := _changes(enumerate(value), left):
        value = value.copy()
        for index, item in changed.items():
            value[index] = item
    return value


def _tuple(value: tuple[Any, ...], left: int) -> dict[str, Any]:
    return {"@tuple": _list(list(value), left)}


def _dict(value: dict[Any, Any], left: int) -> dict[str, Any]:
    if not _STR.issuperset(map(type, value)):
        value = {_key_text(key): item for key, item in value.items()}
    if changed := _changes(value.items(), left):
        value = {**value, **changed}
    return {"@dict": value} if _looks_like_tag(value) else value


def _changes(places: Iterable[tuple[Any, Any]], left: int) -> dict[Any, Any] | None:
    """Yield the items that need another form, by place. The time of `encode` is spent in this loop."""
    if left <= 0:
        raise _WrongValue("nested too deeply, or containing itself", SessionTooLarge)
    changed: dict[Any, Any] | None = None
    for place, item in places:
        kind = type(item)
        if kind is str or kind is bool or item is None or (kind is int and -INT_LIMIT < item < INT_LIMIT):
            continue
        try:
            form = _WRITERS.get(kind, _as_flask)(item, left - 1)
        except _WrongValue as refused:
            refused.path.append(place)
            raise
        if form is not item:
            changed = {} if changed is None else changed
            changed[place] = form
    return changed


def _key_text(key: object) -> str:
    """Return a dict key as JSON has it: ``1`` as "1", None as "null". Of keys that become the same the last counts."""
    try:
        [text] = json.loads(json.dumps({key: None}))
    except (TypeError, ValueError):
        raise _WrongValue(f"a dict key of type {type(key).__qualname__}") from None
    return str(text)


def _escaped(form: Any) -> str:
    """Return the form of a value with a lone surrogate (half an emoji, cut by a browser), which UTF-8 cannot carry."""
    return json.dumps(form, separators=(",", ":"))


def _looks_like_tag(value: dict[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)).startswith("@")


# -- values that are one text --------------------------------------------------------------------------------------


def _int_text(value: int) -> str:
    if -INT_LIMIT < value < INT_LIMIT:
        raise ValueError
    try:
        return int.__repr__(value)
    except ValueError:
        raise _WrongValue(f"an int of more than {sys.get_int_max_str_digits()} digits") from None


def _float_text(value: float) -> str:
    if isfinite(value):
        raise ValueError
    return float.__repr__(value)


def _datetime_text(value: datetime) -> str:
    offset = value.utcoffset()
    if offset is not None and offset.microseconds:  # no zone has one, and fromisoformat drops the smallest
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise _WrongValue("a datetime that is in no year of UTC") from None
    return datetime.isoformat(value)


_TEXT_FORMS: tuple[tuple[type, str, Callable[[Any], str], Callable[[str], Any]], ...] = (
    (bytes, "@bytes", lambda value: b64encode(value).decode(), lambda text: b64decode(text, validate=True)),
    (Markup, "@markup", str.__str__, Markup),
    (UUID, "@uuid", str, UUID),
    (datetime, "@datetime", _datetime_text, datetime.fromisoformat),
    (date, "@date", date.isoformat, date.fromisoformat),
    (Decimal, "@decimal", str, Decimal),
)
_READERS: dict[str, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    **{tag: (to_text, from_text) for _, tag, to_text, from_text in _TEXT_FORMS},
    "@int": (_int_text, int),
    "@float": (_float_text, float),
}


def _writer(tag: str, to_text: Callable[[Any], str]) -> Callable[[Any, int], dict[str, str]]:
    return lambda value, left: {tag: to_text(value)}


_WRITERS: dict[type, Callable[[Any, int], Any]] = {
    type(None): lambda value, left: None,
    bool: lambda value, left: value,
    str: lambda value, left: value,
    int: _int,
    float: _float,
    list: _list,
    tuple: _tuple,
    dict: _dict,
    **{kind: _writer(tag, to_text) for kind, tag, to_text, _ in _TEXT_FORMS},
}


# -- reading -------------------------------------------------------------------------------------------------------


def _is_escaped(value: Any) -> bool:
    return type(value) is dict and value.keys() == {_ESCAPED}


def _unescaped(text: Any) -> Any:
    """Return the decoded JSON value of an escaped form, if it is one that had to be escaped."""
    if type(text) is not str:
        raise UnreadableValue("a tag with content that is not ours")
    form = json.loads(text)
    try:
        _to_json(form)
    except UnicodeEncodeError:
        if _escaped(form) == text:
            return form
    raise UnreadableValue("a tag with content that is not ours")


def _restored(value: Any) -> Any:
    """Return the value of decoded JSON. Containers are changed in place: no other code has them yet."""
    if type(value) is dict and _looks_like_tag(value):
        [(tag, content)] = value.items()
        return _untagged(tag, content)
    return _restored_parts(value)


def _restored_parts(value: Any) -> Any:
    if type(value) is not dict and type(value) is not list:
        return value
    for place, item in value.items() if type(value) is dict else enumerate(value):
        if type(item) is dict or type(item) is list:
            value[place] = _restored(item)
    return value


def _untagged(tag: str, content: Any) -> Any:
    if tag == "@tuple" and type(content) is list:
        return tuple(_restored_parts(content))
    if tag == "@dict" and type(content) is dict and _looks_like_tag(content):
        return _restored_parts(content)
    if tag in _READERS and type(content) is str:
        return _from_text(content, *_READERS[tag])
    raise UnreadableValue("a tag that is not ours")


def _from_text(text: str, to_text: Callable[[Any], str], from_text: Callable[[str], Any]) -> Any:
    """Return a tag's value. Only the one form that is written is read: the standard library's parsers accept many."""
    try:
        value = from_text(text)
        if to_text(value) == text:
            return value
    except (ValueError, ArithmeticError, _WrongValue):
        pass
    raise UnreadableValue("a tag with content that is not ours")
