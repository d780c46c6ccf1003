"""The verdict once all is healed: what is there, checked against what was acknowledged."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from devservers.processes import wait_until
from flask_langpont_session.metrics.losses import Cause

from .account import state_of
from .actors import Actor, Clear, Crowd
from .application import DATA, LIST, THEME, Report
from .browser import Browser
from .findings import Finding, reports_of, short
from .hosts import LONG, Worker
from .ledger import Life, Wrongs

WRITES = ("writes_lost", "merge_conflicts", "merge_dropped", "request_only_writes")
"""Counters of the package for writes that are not there. What is reported of one session excuses no other one."""

_ASKING = 4
"""Questions at once."""

MERGES = ("merge_conflicts", "merge_dropped")
"""Those of values that waited, with all that was appended since they were made."""

_OF_ADDITIONS = (Cause.IN_DOUBT.value, Cause.NO_NUMBER.value)
"""Causes by which no list gives way."""

LOST = Cause.LOST_BY_REDIS.value
"""The cause by which the package counts a category of a session whose last version no living worker had."""


@dataclass
class Verdict:
    """The result of a run.

    :ivar undone_reported: how many of the undone clears were reported as lost by the request that was to clear.
    :ivar uncounted: what is found beside the losses that the package has counted or reported, of those very sessions.
    :ivar lacking: lists and counters of which something is gone for good, each session once.
    :ivar counted: how many of them the package has counted.
    :ivar wrong: sentences; none: everything that was promised was kept.
    """

    seed: int
    acknowledged: Counter[str]
    found: Wrongs
    uncounted: Wrongs
    lists_damaged: int
    clears: int
    undone: int
    undone_reported: int
    ended: int
    showing: int
    reported: Mapping[str, int]
    levels: Mapping[int, int]
    strangers: int
    abandoned: int
    faults: Mapping[str, int]
    older: int
    ended_lacking: int
    ended_uncounted: int
    lacking: int
    counted: int
    wrong: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the rows of the table."""
        found = self.found
        yield "seed", str(self.seed)
        yield "appends acknowledged", str(self.acknowledged["append"])
        destroyed = f"{found.destroyed} ({self.uncounted.destroyed} unreported)"
        yield "… lost", f"{found.lost + found.firm_lost} ({found.firm_lost} of them acknowledged at level 0)"
        yield "older entries destroyed", f"{destroyed}, in {self.lists_damaged} lists"
        yield "answers that lacked older entries", str(self.older)
        yield "older entries gone when a session ended", f"{self.ended_lacking} ({self.ended_uncounted} unreported)"
        yield "sessions that lack anything / counted as lost", f"{self.lacking} / {self.counted}"
        yield "entries twice / out of order / foreign", f"{found.twice} / {found.disordered} / {found.foreign}"
        yield "blind writes lost / themes lost", f"{found.texts_lost} / {found.themes_lost}"
        yield "increments acknowledged", str(self.acknowledged["count"])
        yield "… lost / counted twice", f"{found.increments_lost} / {found.increments_twice}"
        yield "clears undone", f"{self.undone} of {self.clears} ({self.undone_reported} of them reported as lost)"
        yield "ended ids that show data", f"{self.showing} of {self.ended}"
        yield "reported", ", ".join(f"{name} {self.reported[name]}" for name in WRITES)
        yield "faults", ", ".join(f"{name} {number}" for name, number in sorted(self.faults.items()))
        yield "answers by level", ", ".join(f"{level}: {number}" for level, number in sorted(self.levels.items()))
        yield "users shown as strangers / sessions given up", f"{self.strangers} / {self.abandoned}"

    def table(self) -> str:
        """Return the table, for people."""
        lines = [f"{name:<46}{value}" for name, value in self.rows()]
        return "\n".join([*lines, *(f"WRONG: {text}" for text in self.wrong)])

    def figures(self) -> dict[str, Any]:
        """Return the figures, for programs."""
        return {**vars(self), "found": vars(self.found), "uncounted": vars(self.uncounted)}


def verdict(crowd: Crowd, workers: Sequence[Worker], faults: Mapping[str, int]) -> Verdict:
    """Ask every worker about every list, and about every id that ended. All of them are at level 0.

    :param faults: what happened, how often.
    """
    found, uncounted, damaged, wrong = Wrongs(), Wrongs(), 0, list(crowd.errors)
    lacking, ended, lost, reports = list[bool](), list[Life](), _lost_by_redis(workers), _reports_of_data(workers)
    unreported = 0
    for actor in crowd.actors:
        said = _reports_of(actor.life, reports)
        shown, verified, left = _verify(actor, workers, wrong, _given_way(actor.life, said))
        if any(vars(verified).values()):
            missing = sorted({*actor.life.acknowledged, *actor.life.read_back}.difference(shown["list"]))
            text = f"{verified}: {missing} are missing from {shown}"
            actor.wrong.append(Finding(text, actor.browser.cookie, missing))
        for life in actor.lives:
            if life.older:
                text = f"{life.older} answers lacked older entries, the first one {sorted(life.lacked)}"
                actor.notes.append(Finding(text, actor.browser.cookie, sorted(life.lacked)))
        for life in actor.lives[:-1]:
            silent = life.missing - _given_way(life, _reports_of(life, reports))
            if silent and not _is_counted([life], DATA, lost):
                unreported += len(silent)
                text = f"{sorted(silent)} were gone when the session ended, and nothing reported it"
                actor.wrong.append(Finding(text, actor.browser.cookie, sorted(silent)))
        is_counted = _is_counted([actor.life], DATA, lost)
        found += verified
        left = left.but_for(data=is_counted, theme=_is_counted(actor.lives, THEME, lost))
        uncounted += left.excused(sum(report.number for report in said))
        damaged += verified.destroyed > 0
        ended += [life for life in actor.lives[:-1] if life.missing]
        lacking += [is_counted] * verified.lacks
    graves = [(actor, grave) for actor in crowd.actors for grave in actor.graves]
    with ThreadPoolExecutor(_ASKING) as pool:
        showing = sum(pool.map(lambda one: _shows_anything(one[0], one[1], workers), graves))
    made = Verdict(
        seed=crowd.seed,
        acknowledged=sum((actor.acknowledged for actor in crowd.actors), Counter()),
        found=found,
        uncounted=uncounted,
        lists_damaged=damaged,
        clears=sum(len(actor.clears) for actor in crowd.actors),
        undone=0,
        undone_reported=0,
        ended=len(graves),
        showing=showing,
        reported=_reported(workers),
        levels=crowd.levels,
        strangers=crowd.strangers,
        abandoned=crowd.abandoned,
        faults=faults,
        older=sum(life.older for actor in crowd.actors for life in actor.lives),
        ended_lacking=sum(len(life.missing) for life in ended),
        ended_uncounted=unreported,
        lacking=len(lacking) + len(ended),
        counted=sum(lacking) + sum(_is_counted([life], DATA, lost) for life in ended),
        wrong=wrong,
    )
    count_undone(made, crowd, workers)
    wrong += _wrong(made)
    return made


def _lost_by_redis(workers: Sequence[Worker]) -> set[tuple[str, str]]:
    """Return session and category of each loss that the package has counted."""
    reports = (report for worker in workers for report in reports_of(worker))
    return {(report.session, report.category) for report in reports if report.cause == LOST}


def _reports_of_data(workers: Sequence[Worker]) -> Mapping[str, Sequence[Report]]:
    """Return session → the reports that of its list, its counter and its texts something is not kept."""
    reported = defaultdict[str, list[Report]](list)
    for report in (report for worker in workers for report in reports_of(worker)):
        if report.session and report.category == DATA:
            reported[report.session].append(report)
    return reported


def _reports_of(life: Life, reports: Mapping[str, Sequence[Report]]) -> Sequence[Report]:
    return [report for session in life.sessions for report in reports.get(session, ())]


def _given_way(life: Life, said: Sequence[Report]) -> set[int]:
    """Return the entries that are gone with a value that gave way in a merge, or was dropped, and was reported."""
    return life.reported([each.at for each in said if each.what in MERGES and each.cause not in _OF_ADDITIONS])


def _is_counted(lives: Sequence[Life], category: str, lost: set[tuple[str, str]]) -> bool:
    return any((session, category) in lost for life in lives for session in life.sessions)


def _verify(
    actor: Actor, workers: Sequence[Worker], wrong: list[str], reported: Collection[int]
) -> tuple[Mapping[str, Any], Wrongs, Wrongs]:
    """Return what is shown at the end, what is wrong with it, and the same but for reported entries.

    :param wrong: is told what is no matter of the ledger.
    """
    if actor.browser.cookie is None:
        return {}, Wrongs(), Wrongs()
    shown = [_look(actor.browser, worker) for worker in workers]
    for each in shown:
        actor.look_for_cleared(each["list"])
    first = shown[0]
    if first["user"] != actor.expected:
        if not actor.in_doubt or first["user"] is not None:
            wrong.append(f"{actor.expected} is shown as {first['user']} at the end")
            actor.wrong.append(Finding(wrong[-1], actor.browser.cookie))
        return first, Wrongs(), Wrongs()
    if actor.account is not None and not actor.in_doubt:
        said = [*shown, _look(actor.browser, workers[0], "/fresh")]
        for text in actor.account.ends([state_of(each["user"], each["role"]) for each in said]):
            wrong.append(f"{actor.name}: {text}")
            actor.wrong.append(Finding(text, actor.browser.cookie))
    keys = ("user", "list", "count", "blind", "theme")
    if any(each[key] != first[key] for each in shown for key in keys):
        wrong.append(f"the workers disagree about {actor.name}")
        actor.wrong.append(Finding(f"{wrong[-1]}: {shown}", actor.browser.cookie))
    cleared = set[int]().union(*(clear.entries for clear in actor.clears))
    content = {**first, "list": [entry for entry in first["list"] if entry not in cleared]}
    verified, left = actor.life.verify(content), actor.life.verify(content, reported)
    if verified.increments_twice and actor.clears:
        actor.clears[-1].undone = True  # the counter came back, as the list may have done
        verified.increments_twice = left.increments_twice = 0
    return first, verified, left


def _look(browser: Browser, worker: Worker, path: str = "/look") -> Any:
    """Return what a worker shows at level 0, which on a busy machine it may leave for a moment; likewise the database
    may answer a fresh read too late."""
    shown: list[Any] = []

    def is_at_level_0() -> bool:
        answer = browser.at(worker.url).get(path)
        shown[:] = [answer.json] if answer.ok else []
        return answer.ok and answer.json["level"] == 0 and answer.json.get("fresh", True)

    wait_until(is_at_level_0, "an answer at level 0", LONG, pause=0.05)
    return shown[0]


def _shows_anything(actor: Actor, grave: Browser, workers: Sequence[Worker]) -> bool:
    shown = [_look(grave.twin(), worker) for worker in workers]
    some = [each for each in shown if any(each[key] for key in ("list", "count", "blind", "theme", "user"))]
    if some:
        actor.wrong.append(Finding(f"the ended id {short(grave.cookie)} shows {some[0]}", grave.cookie))
    return bool(some)


def look_in_a_last_outage(crowd: Crowd, at_level_2: Sequence[Worker]) -> int:
    """Look once more, without Redis. Return how many ended ids show data then, and note cleared entries that come
    back."""
    showing = 0
    for actor in crowd.actors:
        for worker in (worker for worker in actor.host.workers if worker in at_level_2):
            answer = actor.browser.at(worker.url).get("/look")
            if answer.ok:
                actor.look_for_cleared(answer.json["list"])
            for grave in actor.graves[-5:]:
                answer = grave.twin(worker.url).get("/look")
                if answer.ok and (answer.json["list"] or answer.json["count"] or answer.json["user"]):
                    showing += 1
                    text = f"in an outage {worker.name} shows of {short(grave.cookie)}: {answer.json}"
                    actor.wrong.append(Finding(text, grave.cookie))
    return showing


def _is_reported(clear: Clear, workers: Sequence[Worker]) -> bool:
    """Return whether the request that was to clear reported its loss."""
    reports = (report for worker in workers for report in reports_of(worker) if report.session == clear.session)
    return any(report.what == "writes_lost" and clear.asked <= report.at <= clear.answered for report in reports)


def count_undone(made: Verdict, crowd: Crowd, workers: Sequence[Worker]) -> int:
    """Count the clears that are undone by now. Return how many more than before no request has reported."""
    before = made.undone - made.undone_reported
    undone = [clear for actor in crowd.actors for clear in actor.clears if clear.undone]
    made.undone, made.undone_reported = len(undone), sum(_is_reported(clear, workers) for clear in undone)
    return made.undone - made.undone_reported - before


def _reported(workers: Sequence[Worker]) -> Mapping[str, int]:
    counted = Counter[str]()
    for worker in workers:
        counted.update(worker.counters())
    return {name: counted[name] for name in WRITES}


def _wrong(made: Verdict) -> Iterator[str]:
    """Yield the broken promises."""
    found = made.uncounted
    for number, what in (
        (found.lost + found.firm_lost + found.texts_lost, "acknowledged writes are neither there nor reported"),
        (found.destroyed, f"entries of {LIST} were shown before and are gone"),
        (found.increments_lost, "acknowledged increments are neither counted nor reported"),
        (found.increments_twice, "increments were counted twice"),
        (found.twice, "entries are there twice"),
        (found.disordered, "entries are out of order"),
        (found.foreign, "entries were never appended to this list"),
        (found.themes_lost, "texts of priority medium that were stored are gone"),
        (made.ended_uncounted, f"entries of {LIST} were gone when their session ended, and nothing reported it"),
        (made.undone - made.undone_reported, "clears were undone"),
        (made.showing, "ended ids show data"),
    ):
        if number:
            yield f"{number} {what}"
