"""The outage report: what happened to the browsers is counted rightly, and the machinery works with real servers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.outages import run
from benchmarks.outages.detection import Seen, summary
from benchmarks.outages.faults import OUTAGES, NoOutage
from benchmarks.outages.history import OLD_COOKIE, READ, SIGN_OUT, Event, Figures, figures
from benchmarks.outages.report import Results, as_json, markdown
from benchmarks.outages.run import QUICK
from benchmarks.outages.stage import LANGPONT, compare_bodies, staged
from benchmarks.page import written_into

BEGAN, HEALED, ENDED = 10.0, 14.0, 20.0


def event(at: float, what: str = READ, status: int = 200, user: str | None = "ann", **more: object) -> Event:
    """One request that took 10 ms."""
    fields: dict[str, object] = {"browser": "ann", "ended": at + 0.01, **more}
    return Event(what=what, status=status, began=at, user=user, **fields)  # type: ignore[arg-type]


def count(*events: Event) -> Figures:
    """The figures of a history."""
    return figures(events, began=BEGAN, healed=HEALED, ended=ENDED, quiet=1.5)


def test_a_user_for_whom_all_went_well() -> None:
    """Nothing is found, and all was well from the very end of the outage on."""
    found = count(event(9), event(11, "drafts", number=1), event(19, lists={"drafts": (1,)}))
    assert found == Figures(2, 0, 0, pytest.approx(0.01), 0, 0, {"drafts": 1}, {"drafts": 0}, 0, 0, 0, 0.0)  # type: ignore[arg-type]


def test_errors_are_counted_by_kind_and_only_since_the_outage_began() -> None:
    """5xx, no answer at all, and the slowest of all."""
    found = count(event(9, status=500), event(11, status=503), event(12, status=0, ended=13.5), event(16))
    assert (found.requests, found.errors, found.unanswered, found.slowest) == (3, 1, 1, 1.5)


def test_a_user_shown_as_signed_out_was_logged_out_for_a_moment_or_for_good() -> None:
    """A 5xx is no logout. A user who has signed out was not logged out."""
    assert count(event(11, user=None), event(19)).for_a_moment == 1
    assert count(event(11), event(19, user=None)).logged_out == 1
    assert count(event(11, status=500, user=None), event(19)).logged_out == 0
    left = count(event(11, SIGN_OUT, user=None), event(12, OLD_COOKIE, user=None))
    assert (left.logged_out, left.for_a_moment) == (0, 0)


def test_a_lost_write_was_acknowledged_and_is_not_there_at_the_end() -> None:
    """What was refused is not lost, and what was there for a while is."""
    found = count(
        event(11, "drafts", number=1),
        event(12, "drafts", number=2),
        event(13, "account", status=500, number=3),
        event(15, lists={"drafts": (1, 2)}),
        event(19, lists={"drafts": (2,), "account": ()}),
    )
    assert (found.written, found.lost) == ({"drafts": 2}, {"drafts": 1})


def test_writes_of_a_session_that_is_gone_are_lost() -> None:
    """Its last read shows nothing."""
    found = count(event(9, "drafts", number=1), event(19, user=None, lists={"drafts": ()}))
    assert (found.logged_out, found.lost) == (1, {"drafts": 1})


def test_a_session_is_resurrected_by_whatever_shows_it_after_an_acknowledged_sign_out() -> None:
    """Also if it is gone again later. What was on its way before the answer says nothing."""
    out = event(11, SIGN_OUT, user=None)
    assert count(out, event(15, OLD_COOKIE), event(19, OLD_COOKIE, user=None)).resurrected == 1
    overlapping = count(out, event(11.005, OLD_COOKIE, ended=11.5), event(19, OLD_COOKIE, user=None))
    assert (overlapping.signed_out, overlapping.resurrected) == (1, 0)


def test_a_refused_sign_out_promises_nothing_but_is_told() -> None:
    """It failed, and the old cookie still opens the session."""
    refused = event(11, SIGN_OUT, status=500, user=None)
    found = count(refused, event(19, OLD_COOKIE))
    assert (found.signed_out, found.resurrected, found.not_signed_out) == (0, 0, 1)
    assert count(refused, event(19, OLD_COOKIE, user=None)).not_signed_out == 0


@pytest.mark.parametrize(
    "wrong",
    [
        event(15, status=500, ended=15.5),
        event(14.2, ended=15.5),
        event(15, user=None, ended=15.5),
        event(13, status=0, ended=15.5),
    ],
    ids=["5xx", "slow", "signed_out", "no_answer"],
)
def test_all_is_well_when_nothing_has_been_wrong_for_a_while(wrong: Event) -> None:
    """The last wrong answer after the end of the outage counts; close to the end of the history it is not known."""
    assert count(wrong, event(19)).recovery == 1.5
    assert count(replace(wrong, ended=19.0), event(19.5)).recovery is None


def test_the_figures_of_a_detection() -> None:
    """The first degraded answer, the requests that paid for it, and the last degraded one after the end."""
    healthy = [Seen(0.01 * n, 0.01 * n + 0.004, 200, 0, 0.002) for n in range(100)]
    paid = [Seen(1.0, 1.21, 200, 2, 0.2), Seen(1.1, 1.3, 200, 2, 0.2)]
    degraded = [Seen(1.3 + 0.01 * n, 1.304 + 0.01 * n, 200, 2, 0.003) for n in range(100)]
    late = [Seen(2.5, 2.6, 200, 1, 0.001), Seen(2.7, 2.71, 500, -1, 0.001)]
    found = summary([*healthy, *paid, *degraded, *late], began=1.0, healing=2.3)
    assert found.detected == pytest.approx(0.21)
    assert (found.paid, found.dearest, found.errors) == (2, 0.2, 1)
    assert found.before == pytest.approx(0.002)
    assert found.after == pytest.approx(0.003)
    assert found.recovered == pytest.approx(0.3)


def test_one_outage_of_real_servers_becomes_a_row_with_its_proof() -> None:
    """This package alone, one outage: nobody gets an error, nobody is logged out, no sign-out is undone."""
    with staged((LANGPONT,)) as stage:
        assert compare_bodies(stage) == 10
        row = run.outage(stage, OUTAGES[0], replace(QUICK, watched=(2.0, 8.0)), seed=1)
    found = row.figures[LANGPONT.name]
    assert found.requests > 30
    assert found.signed_out == QUICK.leave
    assert (found.errors, found.unanswered, found.logged_out, found.resurrected, found.not_signed_out) == (0,) * 5
    assert sum(found.written.values()) > 0
    assert "`refuse`" in row.proof[0]
    results = Results("a machine", (LANGPONT,), 10, "a load", [row])
    assert f"| {OUTAGES[0].title} | 5xx: 0 of {found.requests}<br>" in markdown(results)
    assert json.loads(json.dumps(as_json(results)))["outages"]["refused"]["figures"][LANGPONT.name]["errors"] == 0


def test_an_outage_that_did_not_happen_is_not_reported() -> None:
    """No request was there to be delayed."""
    slow = next(outage for outage in OUTAGES if outage.name == "slow")
    with staged(()) as stage, pytest.raises(NoOutage, match="delay"), slow.causing(stage, []):
        pass


def test_the_report_is_written_between_its_markers() -> None:
    """What stands around it is kept; a document without them is not touched."""
    begin, end = "<!-- detection -->", "<!-- end of detection -->"
    document = f"before\n{begin}\nold\n{end}\nafter\n"
    assert written_into(document, "detection", "new\n") == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    with pytest.raises(ValueError, match="lacks the lines"):
        written_into(document, "outage-report", "new")
