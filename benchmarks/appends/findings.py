"""What explains a finding: what its session was asked and answered, what was reported of it, and where it is found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask_langpont_session.policy.ids import digest_of

from .application import Report
from .browser import Browser

if TYPE_CHECKING:
    from .actors import Actor
    from .hosts import Worker

_MOST = 40
"""Lines of a session's history."""

_AROUND = 4
"""Lines before and behind those that an entry was sent by."""

_BEFORE, _AFTER = 3.0, 20.0
"""Seconds around the last use of a session for which reports are told that name none: those of the replay."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a session.

    :param cookie: of the session; None: it has none.
    :param entries: which it is about.
    """

    text: str
    cookie: str | None
    entries: Sequence[int] = ()


def digest_of_cookie(cookie: str) -> str:
    """Under which the stores have a session."""
    return digest_of(cookie.split(".")[0])


def short(cookie: str | None) -> str:
    """The first characters of a session's digest, as log lines of the package have them."""
    return digest_of_cookie(cookie)[:8] if cookie else "-"


def explained(finding: Finding, actor: Actor, workers: Sequence[Worker], began: float) -> Iterator[str]:
    """Lines for people.

    :param workers: all of them.
    :param began: monotonic seconds, from which the times of the history count.
    """
    yield finding.text
    sent = [f" append {entry}:" for entry in finding.entries]
    of_entries = [n for n, event in enumerate(actor.history) if any(text in event.text for text in sent)]
    ids = {short(finding.cookie), *(actor.history[number].session for number in of_entries)}
    of_ids = [number for number, event in enumerate(actor.history) if event.session in ids]
    around = [number + more for number in of_entries for more in range(-_AROUND, _AROUND + 1)]
    # What came next says what became of it.
    numbers = sorted({*(around or of_ids), *(number + 1 for number in of_ids[-1:])} & set(range(len(actor.history))))
    yield from (actor.history[number].text for number in numbers[-_MOST:])
    last = max((actor.history[number].at for number in of_entries or of_ids), default=0.0)
    for worker in workers:
        if worker.journal == actor.host.workers[0].journal:
            yield from (f"{worker.name} reported {line}" for line in _reported(worker, ids, began, last))
    for worker in workers:
        for place, known in _known(worker, finding.cookie).items():
            yield f"{worker.name} {place}: {known}"


def _reported(worker: Worker, ids: set[str], began: float, last: float) -> Iterator[str]:
    for path in sorted(worker.folder.glob("counters-*.reports")):
        for line in path.read_text().splitlines():
            report = Report(*json.loads(line))
            at = report.at - began
            if report.session in ids or (not report.session and -_BEFORE < at - last < _AFTER):
                yield f"{at:6.2f} {' '.join(map(str, report[1:]))}"


def _known(worker: Worker, cookie: str | None) -> dict[str, Any]:
    if cookie is None:
        return {}
    answer = Browser(worker.url).get(f"/known/{digest_of_cookie(cookie)}")
    return dict(answer.json) if answer.ok else {"answer": answer.status}
