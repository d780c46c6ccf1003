"""Records of Flask-Session: what is read, and that no pickle runs anything."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from markupsafe import Markup

from flask_langpont_session.adoption.old_records import NotReadable, read
from flask_langpont_session.exceptions import UnsupportedValue
from flask_langpont_session.policy.serializer import encode

VALUES = {
    "_user_id": "7",
    "cart": [{"item": "tea", "count": 2}],
    "when": datetime(2026, 11, 27, 18, 0, tzinfo=UTC),
    "raw": b"\x00\xff",
    "none": None,
}
RICH = {
    **VALUES,
    "day": date(2026, 11, 27),
    "price": Decimal("1.20"),
    "id": UUID(int=7),
    "html": Markup("<b>"),
    "pair": (1, "a"),
    "ordered": OrderedDict(a=1),
    "span": timedelta(seconds=1),
    "set": {1, 2},
}
Point = namedtuple("Point", "x y")


def test_both_forms_of_flask_session_are_read() -> None:
    """Records are read in either form, whichever Flask-Session is set to write."""
    assert read(msgspec.msgpack.encode(VALUES), pickled=False) == VALUES
    assert read(msgspec.json.encode({"_user_id": "7", "cart": []}), pickled=False) == {"_user_id": "7", "cart": []}


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_read_where_that_is_asked_for(protocol: int) -> None:
    """A pickle is read with the types that it has."""
    record = pickle.dumps(RICH, protocol)
    found = read(record, pickled=True)
    assert found == RICH
    assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in RICH.items()}
    with pytest.raises(NotReadable, match="'flask-session-pickle' in LANGPONT_SESSION_ADOPT"):
        read(record, pickled=False)


class Runs:
    """Calls something where it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        function, *arguments = self._call
        return function, tuple(arguments)


@pytest.mark.parametrize(
    "value",
    [
        Runs(os.system, "touch {}"),
        Runs(eval, "open('{}', 'w')"),
        Runs(exec, "open('{}', 'w')"),
        Runs(getattr, os, "getcwd"),
        Runs(__import__, "os"),
        Runs(Path("{}").touch),
        Point(1, 2),
        Path("{}"),
        ValueError("x"),
        [{"deep": (Point(1, 2),)}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_pickle_names_beside_plain_values_is_neither_called_nor_stored(value: Any, tmp_path: Path) -> None:
    """The rest of the record is read."""
    if isinstance(value, Runs):
        value._call = tuple(p.format(tmp_path / "it-ran") if isinstance(p, str) else p for p in value._call)
    try:
        record = pickle.dumps({"bad": value, "cart": ["tea"]})
    except (TypeError, pickle.PicklingError):  # os cannot be an argument
        record = pickle.dumps({"bad": Runs(getattr, "text", "upper"), "cart": ["tea"]})
    found = read(record, pickled=True)
    assert not (tmp_path / "it-ran").exists()
    assert found["cart"] == ["tea"]
    with pytest.raises(UnsupportedValue):
        encode("bad", found["bad"])


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xff",
        b"\x80\x04",
        b"\x80\x04.",
        b"[1, 2]",
        b"7",
        b'{"a":',
        b"\xc1" * 50,
        b"\x91" * 5000,
        pickle.dumps([1]),
        pickle.dumps(datetime(2026, 1, 1))[:-10],
        pickle.dumps({"a": 1})[:-1],
        b"cos\nsystem\n(S'true'\ntR.",
    ],
)
def test_what_is_no_record_is_said_to_be_none(record: bytes) -> None:
    """One error says so, without anything of what is in the record. Pickles of protocol 0 or 1, which Python 2
    wrote, are none."""
    with pytest.raises(NotReadable):
        read(record, pickled=True)
