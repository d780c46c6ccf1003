"""The soak's own eyes: every broken promise that is planted is found, and what is allowed is not."""

from __future__ import annotations

import json

import pytest

from tests.stories.ledger import OUT
from tests.stories.visitor import COOKIE
from tests.support.site.browser import Answer, Browser

from .logs import look_at_the_log
from .people import Crowd
from .story import LAG, Story

VERIFY_INTERVAL = 1.0


@pytest.fixture
def story() -> Story:
    """A session of Ann's in which nothing was promised but the sign-in."""
    return Story("ann", Browser("http://nowhere.example", {COOKIE: "sid.u"}), VERIFY_INTERVAL)


def answer(at: float = 1.0, **differently: object) -> Answer:
    """Return an answer of a worker about a signed-in session."""
    usual = {"pid": 1, "level": 0, "user": "ann", "role": "role-0", "unverified": False, "text": None, "count": 0}
    return Answer(200, json.dumps(usual | differently), began=at, ended=at + 0.01)


def signed_out(at: float = 2.0, **differently: object) -> Answer:
    """Return an answer of a worker about a session after its sign-out."""
    return answer(at, **{"user": None, "role": None, **differently})


def found(story: Story) -> str:
    """The one finding, without what it quotes; "" if there is none."""
    assert len(story.findings) <= 1, story.findings
    return story.findings[0].split("\n")[0] if story.findings else ""


def test_what_is_allowed_is_no_finding(story: Story) -> None:
    """Its own text, a role that was asked for and not answered, an outage in which it is not known, and the end."""
    story.increments = 1
    story.saw("read", answer(text="ann:1", count=1))
    story.possible.add(1)
    story.saw("read", answer(role="role-1"))
    story.saw("read", answer(user=None, role=None, unverified=True))
    story.promise(OUT, signed_out())
    story.saw("read", answer(2.5, pid=2))  # another worker that does not know of it yet
    story.saw("read", signed_out(3.0))
    story.ends({OUT}, False)
    assert found(story) == ""


@pytest.mark.parametrize(
    ("seen", "finding"),
    [
        (answer(user="bob"), "another user"),
        (answer(text="bob:1"), "another visitor's text"),
        (answer(count=1), "counted twice: 1 after 0"),
        (signed_out(), "logged out"),
        (answer(role="role-3"), "was not asked for"),
    ],
)
def test_an_answer_that_must_not_be(story: Story, seen: Answer, finding: str) -> None:
    """Others' data, too much of one's own, too little, and rights out of nowhere."""
    story.saw("read", seen)
    assert finding in found(story)


def test_a_withdrawn_right_that_comes_back(story: Story) -> None:
    """One worker has shown the newer one."""
    story.promise(1, answer())
    story.saw("read", answer(role="role-1"))
    story.saw("read", answer(pid=2))  # another worker may be late
    assert found(story) == ""
    story.saw("read", answer())
    assert found(story).startswith("ann: I4")


def test_a_fresh_read_that_is_stale(story: Story) -> None:
    """It says yes, and not what the database has."""
    story.promise(1, answer())
    story.saw("fresh", answer(pid=2, fresh=False))
    assert found(story) == ""
    story.saw("fresh", answer(pid=3, fresh=True))
    assert found(story).startswith("ann: I2")


def test_a_sign_out_that_is_undone(story: Story) -> None:
    """At once by the worker that acknowledged it, and by any other after a while."""
    story.promise(OUT, signed_out(2.0))
    story.saw("read", answer(2.5))
    assert found(story).startswith("ann: I5")
    story.findings.clear()
    story.saw("read", answer(2.5 + VERIFY_INTERVAL + LAG, pid=2))
    assert found(story).startswith("ann: I1")


@pytest.mark.parametrize(
    ("states", "row", "finding"),
    [({0, OUT}, True, "disagree"), ({OUT}, False, "promised 0"), ({0}, None, "the database says None")],
)
def test_an_end_that_is_wrong(story: Story, states: set[int], row: bool | None, finding: str) -> None:
    """Workers that disagree, a lost session, a session without a row."""
    story.ends(states, row)
    assert finding in found(story)


@pytest.mark.parametrize(
    ("what", "status", "headers", "seconds", "finding"),
    [
        ("read", 200, {}, 0.1, ""),
        ("role", 503, {"Retry-After": "5"}, 0.1, ""),
        ("role", 503, {}, 0.1, "I13"),
        ("read", 503, {"Retry-After": "5"}, 0.1, "I13"),
        ("sign-out", 500, {}, 0.1, "I13"),
        ("read", 200, {}, 4.0, "I12"),
    ],
)
def test_an_answer_is_a_finding_by_its_status_and_time(
    what: str, status: int, headers: dict[str, str], seconds: float, finding: str
) -> None:
    """Only grants may be refused, and only with the time of another try."""
    crowd = Crowd("http://nowhere.example", seed=1, limit=3.0, verify_interval=VERIFY_INTERVAL)
    crowd.check(what, lambda: Answer(status, answer().body, headers=headers, began=1.0, ended=1.0 + seconds))
    assert [text.split(":")[0] for text in crowd.findings] == ([finding] if finding else [])


@pytest.mark.parametrize("line", ["session 7f9s3cret", "the value person-1:17", "Traceback (most recent call last):"])
def test_a_log_that_says_too_much(line: str) -> None:
    """An id, a value, an unexpected error."""
    findings: list[str] = []
    look_at_the_log(f"all is well\n{line}\n", {"7f9s3cret"}, findings.append)
    assert len(findings) == 1
    look_at_the_log("all is well\n", {"7f9s3cret"}, findings.append)
    assert len(findings) == 1
