"""The checker's own eyes: every broken promise about a sign-in is found, and what is allowed is not."""

from __future__ import annotations

import json

import pytest

from tests.support.site.account import LAG, OUT, Account, is_end
from tests.support.site.browser import Answer

VERIFY_INTERVAL = 1.0


@pytest.fixture
def account() -> Account:
    """Return Ann's, of which nothing was promised but the sign-in."""
    return Account("ann", VERIFY_INTERVAL)


def answer(at: float = 1.0, **differently: object) -> Answer:
    """Return an answer of a worker about a signed-in session."""
    usual = {"pid": 1, "user": "ann", "role": "role-0", "unverified": False}
    return Answer(200, json.dumps(usual | differently), began=at, ended=at + 0.01)


def signed_out(at: float = 2.0, **differently: object) -> Answer:
    """Return an answer of a worker about a session after its sign-out."""
    return answer(at, **{"user": None, "role": None, **differently})


def found(account: Account, *answers: Answer) -> list[str]:
    """Return the beginnings of what is found in answers."""
    return [text.split(":")[0] for each in answers for text in account.saw(each)]


def test_what_is_allowed_is_no_finding(account: Account) -> None:
    """A role that was asked for and not answered, an outage in which it is not known, and the end."""
    account.possible.add(1)
    assert found(account, answer(role="role-1"), answer(user=None, role=None, unverified=True)) == []
    account.promise(OUT, signed_out())
    late = answer(2.5, pid=2)  # another worker that does not know of it yet
    assert found(account, late, signed_out(3.0)) == []
    assert list(account.ends({OUT})) == []


@pytest.mark.parametrize(
    ("seen", "finding"),
    [(answer(user="bob"), "I8/I10"), (signed_out(), "I6"), (answer(role="role-3"), "I3")],
)
def test_an_answer_that_must_not_be(account: Account, seen: Answer, finding: str) -> None:
    """Others' data, too little of one's own, and rights out of nowhere."""
    assert found(account, seen) == [finding]


def test_a_withdrawn_right_that_comes_back(account: Account) -> None:
    """One worker has shown the newer one; another worker may be late."""
    account.promise(1, answer())
    assert found(account, answer(role="role-1"), answer(pid=2)) == []
    assert found(account, answer()) == ["I4"]


def test_a_fresh_read_that_is_stale(account: Account) -> None:
    """It says that the database answered, and not what that has."""
    account.promise(1, answer())
    assert found(account, answer(pid=2, fresh=False)) == []
    assert found(account, answer(pid=3, fresh=True)) == ["I2"]


def test_a_sign_out_that_is_undone(account: Account) -> None:
    """At once by the worker that acknowledged it, and by any other after a while."""
    account.promise(OUT, signed_out(2.0))
    assert found(account, answer(2.5)) == ["I5"]
    assert found(account, answer(2.5 + VERIFY_INTERVAL + LAG, pid=2)) == ["I1"]


@pytest.mark.parametrize(
    ("status", "said", "promised"),
    [
        *((200, {"kept": place}, True) for place in ("database", "redis", "journal")),
        (200, {"kept": "nowhere"}, False),
        (200, {"kept": None}, False),
        (200, {"durable": True}, True),
        (200, {"durable": False}, False),
        (503, {"kept": "database"}, False),
    ],
)
def test_an_end_that_is_kept_nowhere_is_no_promise(status: int, said: dict[str, object], promised: bool) -> None:
    """A sign-out that neither a store nor the journal took is lost with its worker, as the guarantees say."""
    assert is_end(Answer(status, json.dumps(said))) is promised


@pytest.mark.parametrize("states", [(0, OUT), (OUT, OUT), (1, 1)])
def test_an_end_that_is_wrong(account: Account, states: tuple[int, ...]) -> None:
    """Workers that disagree, a lost session, a role that was never given."""
    assert [text.split(":")[0] for text in account.ends(states)] == ["I6"]
