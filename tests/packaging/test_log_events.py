"""Every line of the log has its data in ``extra=`` under an event of its own; ``tools.tables`` lists them."""

from __future__ import annotations

import logging
import re

from tools.tables import LEVELS, Line, all_lines, lines_of, sources


def test_every_line_has_an_event_of_its_own() -> None:
    lines = all_lines()
    assert [line.where for line in lines if not re.fullmatch(r"[a-z]+(_[a-z]+)*", line.event)] == []
    events = [line.event for line in lines]
    assert sorted(events) == sorted(set(events))


def test_every_logger_is_found_by_its_name() -> None:
    """Every logger is called ``log``, so that :func:`lines_of` misses no line."""
    makers = re.compile(r"(?:(\w+) = )?logging\.(?:getLogger\(__name__|debug\(|info\(|warning\(|error\(|exception\()")
    found = [match[1] for _, source in sources() for match in makers.finditer(source)]
    assert set(found) == {"log"}


def test_no_line_has_what_may_not_stand_in_the_log() -> None:
    """Their values are those of the text; names of other things would be new here."""
    names = {name for line in all_lines() for name in line.fields}
    assert (
        names & {"sid", "session_id", "digest", "user", "user_id", "value", "password", "token", "url", "cookie"}
        == set()
    )
    # Of a session there are the first characters of its digest.
    assert {line.event for line in all_lines() if "session" in line.fields} == {"changes_given_up", "row_damaged"}


EVERY_WAY = """
log.warning("one")
log.error("two %s", 2, extra={"langpont_event": "two"})
log.exception("three", extra=fields("three", number=3, **error.log_data))
log.log(logging.INFO, "four", extra=fields("four"))
math.log(5)
"""


def test_a_line_without_its_data_is_seen() -> None:
    assert list(lines_of("module.py", EVERY_WAY)) == [
        Line("module.py:2", "", "warning", ()),
        Line("module.py:3", "", "error", ()),
        Line("module.py:4", "three", "error", ("number", "store", "cause", "detail")),
        Line("module.py:5", "four", "info; in debug warning", ()),
    ]
    assert set(LEVELS) <= set(dir(logging.Logger))
