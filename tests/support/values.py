"""Values and bytes that tests of several modules try."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st


def same(a: Any, b: Any) -> bool:
    """Equal, and of equal types all the way down."""
    if type(a) is not type(b):
        return False
    if type(a) in (list, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) is dict:
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if type(a) is datetime:
        return bool(a == b) and a.utcoffset() == b.utcoffset()
    if type(a) is Decimal:
        return bool(a.as_tuple() == b.as_tuple())
    return repr(a) == repr(b) and bool(a == b or a != a)  # repr tells 0.0 from -0.0


any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates too


UNREADABLE = {
    "nothing": b"",
    "not JSON": b"hello",
    "Python": b"{'a': 1}",
    "pickle": b"\x80\x04K\x01.",
    "NaN": b"NaN",
    "Infinity": b"[Infinity]",
    "1e999": b"1e999",
    "5000 digits": b"5" * 5000,
    "100 k brackets": b"[" * 100_000 + b"]" * 100_000,
    "100 k tags": b'{"@tuple":[' * 100_000 + b"]}" * 100_000,
    "BOM": b"\xef\xbb\xbf1",
    "UTF-16": "1".encode("utf-16"),
    "UTF-16 without BOM": '"ab"'.encode("utf-16-le"),
    "bad UTF-8": b'"\xff"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "lone surrogate": b'"\\ud800"',
    "truncated": b'{"a":',
    "trailing": b"1 2",
    "unknown tag": b'{"@set":[1]}',
    "empty tag": b'{"@":1}',
    "unknown tag inside": b'{"a":[{"@x":1}]}',
    "tuple of no list": b'{"@tuple":{"a":1}}',
    "dict of no dict": b'{"@dict":[1]}',
    "dict that needs no tag": b'{"@dict":{"a":1}}',
    "bytes, no base64": b'{"@bytes":"%%%"}',
    "bytes, short": b'{"@bytes":"A"}',
    "bytes, stray bits": b'{"@bytes":"AB=="}',
    "bytes, newline": b'{"@bytes":"AA==\\n"}',
    "bytes of a number": b'{"@bytes":1}',
    "UUID": b'{"@uuid":"1234"}',
    "UUID, other spelling": b'{"@uuid":"{12345678-1234-5678-1234-567812345678}"}',
    "datetime": b'{"@datetime":"yesterday"}',
    "datetime, other spelling": b'{"@datetime":"20250701T120000"}',
    "datetime of null": b'{"@datetime":null}',
    "date": b'{"@date":"2025-02-30"}',
    "date, other spelling": b'{"@date":"2025-W01-1"}',
    "decimal": b'{"@decimal":"one"}',
    "int of 64 bits": b'{"@int":"9223372036854775807"}',
    "int, other spelling": b'{"@int":"+9223372036854775808"}',
    "int of 5000 digits": b'{"@int":"%s"}' % (b"5" * 5000),
    "finite float": b'{"@float":"1.5"}',
    "float, other spelling": b'{"@float":"NaN"}',
    "escaped text that needs it not": b'{"@json":"\\"a\\""}',
    "escaped text, other spelling": rb'{"@json":"[ \"\\ud800\"]"}',
    "escaped text inside": rb'[{"@json":"\"\\ud800\""}]',
    "escaped nothing": b'{"@json":""}',
    "escaped number": b'{"@json":1}',
    "decimal, other spelling": b'{"@decimal":" 1_0 "}',
}
