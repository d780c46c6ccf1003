"""Session value ↔ field: UTF-8 JSON, with tags for what JSON cannot say, so that types come back exactly.

Kept: None, bool, int (|n| < 2**63), finite float, str, list, dict with str keys, and by tag tuple, bytes, Markup, UUID,
datetime, date, Decimal. Everything else is refused when it is set, by exact type: a subclass (an enum, a defaultdict,
a lazy translation) would come back as its base class, which is a bug that shows far from where it was made.

A tag is an object with one key that begins with "@": ``{"@tuple": [1, 2]}``. An application's dict that looks like one
is wrapped: ``{"@dict": {"@tuple": 1}}``.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

import msgspec
from markupsafe import Markup

from .exceptions import SessionTooLarge, SessionValueError, UnreadableValue, UnsupportedValue

INT_LIMIT = 2**63
"""Integers from here on are refused: Redis counts in 64 bits, and so does most that reads JSON."""

_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder().decode
_STR = frozenset({str})
_MUTABLE = frozenset({list, dict, tuple})


class _Refused(Exception):
    """What is wrong with a value, before it is known where in the session it stands."""

    def __init__(self, reason: str, error: type[SessionValueError] = UnsupportedValue) -> None:
        self.reason = reason
        self.error = error
        self.path: list[object] = []  # innermost first

    def error_for(self, key: str) -> SessionValueError:
        # A cycle leaves a path as long as the depth limit; its beginning says where to look.
        steps = [f"[{step!r:.60}]" for step in reversed(self.path)]
        path = "".join(steps[:8]) + ("…" if len(steps) > 8 else "")
        return self.error(key, self.reason, path)


def encode(key: str, value: object, *, max_depth: int = 32) -> bytes:
    """The field for a session value.

    :param key: the session key, for the error only.
    :param max_depth: lists, dicts and tuples allowed inside each other.
    :raises UnsupportedValue: a type or content that would not come back as it was. Says where and which type,
        never the value.
    :raises SessionTooLarge: nested deeper than `max_depth`, or containing itself.
    """
    kind = type(value)
    try:
        if kind is str or kind is bool or value is None:
            return _to_json(value)
        return _to_json(_WRITERS.get(kind, _unsupported)(value, max_depth))
    except _Refused as refused:
        error = refused.error_for(key)
    except UnicodeEncodeError:
        error = UnsupportedValue(key, "a str with a lone surrogate, which is not text")
    # Outside the handlers, so that no driver error that quotes the value hangs on ours.
    raise error


def decode(data: bytes) -> Any:
    """The session value for a field.

    Of an object's duplicate keys the last counts, and numbers or nesting beyond what :func:`encode` accepts are read
    as they are, as long as the JSON is valid: only the writer needs those limits.
    A datetime with an offset comes back with a :class:`datetime.timezone` of that offset, whatever class its tzinfo
    had; `fold` is not kept.

    :raises UnreadableValue: not JSON in UTF-8, or a tag that :func:`encode` does not write.
    """
    try:
        value = _from_json(data)
        # The bytes of a tag's name; they also occur where a str begins with "@", which costs a walk for nothing.
        return _restored(value) if b'"@' in data else value
    except UnreadableValue:
        raise
    except RecursionError:
        reason = "nested too deeply"
    except (msgspec.MsgspecError, ValueError):
        reason = "not JSON in UTF-8"
    raise UnreadableValue(reason)


def check_key(key: object) -> str:
    """The key, if a session can have it.

    :raises UnsupportedValue: not a str, not text, or beginning with "@" (those fields are the package's own).
    """
    if not isinstance(key, str):
        raise UnsupportedValue(key, f"a session key is a str, not {type(key).__qualname__}")
    if key.startswith("@"):
        raise UnsupportedValue(key, 'keys that begin with "@" are reserved')
    if not key.isascii() and any("\ud800" <= letter <= "\udfff" for letter in key):
        raise UnsupportedValue(key, "a key with a lone surrogate, which is not text")
    return str.__str__(key)  # of a StrEnum its text


def is_mutable(value: object) -> bool:
    """Whether a value can change without being assigned again: a list or dict, or a tuple, which may hold one."""
    return type(value) in _MUTABLE


# -- writing: what msgspec would encode wrongly is replaced, all else stays the object it is ------------------------


def _unsupported(value: Any, left: int) -> Any:
    raise _Refused(f"type {type(value).__qualname__} is not supported")


def _int(value: int, left: int) -> int:
    if not -INT_LIMIT < value < INT_LIMIT:
        raise _Refused("an int of 64 bits or more")
    return value


def _float(value: float, left: int) -> float:
    if not isfinite(value):
        raise _Refused("a float that is not a number or infinite")
    return value


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
        [kind, *_] = (type(key) for key in value if type(key) is not str)
        raise _Refused(f"a dict key of type {kind.__qualname__}")
    if changed := _changes(value.items(), left):
        value = {**value, **changed}
    return {"@dict": value} if _looks_like_tag(value) else value


def _changes(places: Iterable[tuple[Any, Any]], left: int) -> dict[Any, Any] | None:
    """The items that need another form, by place. The loop that the time of `encode` is spent in."""
    if left <= 0:
        raise _Refused("nested too deeply, or containing itself", SessionTooLarge)
    changed: dict[Any, Any] | None = None
    for place, item in places:
        kind = type(item)
        if kind is str or kind is bool or item is None or (kind is int and -INT_LIMIT < item < INT_LIMIT):
            continue
        try:
            form = _WRITERS.get(kind, _unsupported)(item, left - 1)
        except _Refused as refused:
            refused.path.append(place)
            raise
        if form is not item:
            changed = {} if changed is None else changed
            changed[place] = form
    return changed


def _looks_like_tag(value: dict[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)).startswith("@")


# -- values that are one text --------------------------------------------------------------------------------------


def _decimal_text(value: Decimal) -> str:
    if not value.is_finite():
        raise _Refused("a Decimal that is not a number or infinite")
    return str(value)


def _datetime_text(value: datetime) -> str:
    offset = value.utcoffset()
    if offset is not None and offset.microseconds:  # no zone has one, and fromisoformat drops the smallest
        raise _Refused("a datetime whose offset has a fraction of a second")
    return value.isoformat()


_TEXT_FORMS: tuple[tuple[type, str, Callable[[Any], str], Callable[[str], Any]], ...] = (
    (bytes, "@bytes", lambda value: b64encode(value).decode(), lambda text: b64decode(text, validate=True)),
    (Markup, "@markup", str.__str__, Markup),
    (UUID, "@uuid", str, UUID),
    (datetime, "@datetime", _datetime_text, datetime.fromisoformat),
    (date, "@date", date.isoformat, date.fromisoformat),
    (Decimal, "@decimal", _decimal_text, Decimal),
)
_READERS = {tag: (to_text, from_text) for _, tag, to_text, from_text in _TEXT_FORMS}


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


def _restored(value: Any) -> Any:
    """The value that a decoded JSON value stands for. Containers are changed in place: nobody else has them yet."""
    if type(value) is dict:
        if _looks_like_tag(value):
            [(tag, content)] = value.items()
            return _untagged(tag, content)
        return _restored_values(value)
    return _restored_items(value) if type(value) is list else value


def _restored_items(value: list[Any]) -> list[Any]:
    for index, item in enumerate(value):
        if type(item) is dict or type(item) is list:
            value[index] = _restored(item)
    return value


def _restored_values(value: dict[str, Any]) -> dict[str, Any]:
    for key, item in value.items():
        if type(item) is dict or type(item) is list:
            value[key] = _restored(item)
    return value


def _untagged(tag: str, content: Any) -> Any:
    if tag == "@tuple" and type(content) is list:
        return tuple(_restored_items(content))
    if tag == "@dict" and type(content) is dict and _looks_like_tag(content):
        return _restored_values(content)
    if tag in _READERS and type(content) is str:
        return _from_text(content, *_READERS[tag])
    raise UnreadableValue("a tag that is not ours")


def _from_text(text: str, to_text: Callable[[Any], str], from_text: Callable[[str], Any]) -> Any:
    """Only the one form that is written is read: the parsers of the standard library accept many."""
    try:
        value = from_text(text)
        if to_text(value) == text:
            return value
    except (ValueError, ArithmeticError, _Refused):
        pass
    raise UnreadableValue("a tag with content that is not ours")
