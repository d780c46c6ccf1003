"""Reads what Flask-Session wrote: msgpack or JSON, and pickle without running what is in it."""

from __future__ import annotations

import io
import pickle
from typing import Any

import msgspec

_SAFE = frozenset(
    {
        ("builtins", "frozenset"),
        ("builtins", "set"),
        ("collections", "OrderedDict"),
        ("datetime", "date"),
        ("datetime", "datetime"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("decimal", "Decimal"),
        ("markupsafe", "Markup"),
        ("uuid", "SafeUUID"),
        ("uuid", "UUID"),
    }
)
"""Module and name of what a pickle may call. None of them does anything but make a value."""


class NotReadable(Exception):
    """The record is in no form that is to be read. The text says why, without anything of the record."""


class Unknown:
    """Stands for an object of a class that is not read. No session can store it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def _ignore(self, *arguments: Any) -> None:
        pass

    def __call__(self, *arguments: Any) -> Unknown:
        return self

    __setitem__ = __setstate__ = add = append = extend = _ignore


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the class that a pickle names: never code of the application's, or of the system's."""
        return super().find_class(module, name) if (module, name) in _SAFE else Unknown


def read(data: bytes, *, pickled: bool) -> dict[Any, Any]:
    """Return the values of a record.

    :param pickled: whether it may be in pickle form.
    :raises NotReadable: it is in none of these forms, or not a dict.
    """
    for decode in (msgspec.msgpack.decode, msgspec.json.decode):
        try:
            return _checked(decode(data))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
    if not data.startswith(b"\x80"):
        raise NotReadable("neither msgpack nor JSON")
    if not pickled:
        raise NotReadable("pickle form, which only 'flask-session-pickle' in LANGPONT_SESSION_ADOPT reads")
    try:
        return _checked(_Reader(io.BytesIO(data)).load())
    except NotReadable:
        raise
    except Exception as error:  # what a damaged pickle raises may be anything
        raise NotReadable(f"a damaged pickle ({type(error).__name__})") from None


def _checked(value: Any) -> dict[Any, Any]:
    if type(value) is not dict:
        raise NotReadable(f"a {type(value).__name__}, not a dict")
    return value
