"""The explanation of a finding: the requests and answers of its session, the reports about it, and where it is
found."""

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

_MOST = 60
"""Lines of a browser's history."""

_BEFORE_ENTRIES, _BEHIND_ENTRIES = 15, 25
"""Lines before and behind those that an entry was sent by: what came next says what became of it."""

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
    """Return the digest under which the stores have a session."""
    return digest_of(cookie.split(".")[0])


def short(cookie: str | None) -> str:
    """Return the first characters of a session's digest, as log lines of the package have them."""
    return digest_of_cookie(cookie)[:8] if cookie else "-"


def explained(finding: Finding, actor: Actor, workers: Sequence[Worker], began: float) -> Iterator[str]:
    """Yield lines for people about a finding.

    :param workers: all of them.
    :param began: monotonic seconds, from which the times of the history count.
    """
    yield finding.text
    sent = [f" append {entry}:" for entry in finding.entries]
    of_entries = [n for n, event in enumerate(actor.history) if any(text in event.text for text in sent)]
    if of_entries:
        told = actor.history[max(0, of_entries[0] - _BEFORE_ENTRIES) : of_entries[-1] + _BEHIND_ENTRIES]
    else:
        told = [event for event in actor.history if event.session == short(finding.cookie)]
    ids = {short(finding.cookie), *(event.session for event in told)}
    yield from (event.text for event in told[-_MOST:])
    last = max((event.at for event in told), default=0.0)
    for worker in workers:
        if worker.journal == actor.host.workers[0].journal:
            yield from (f"{worker.name} reported {line}" for line in _reported(worker, ids, began, last))
    for worker in workers:
        for place, known in _known(worker, finding.cookie).items():
            yield f"{worker.name} {place}: {known}"


def reports_of(worker: Worker) -> Iterator[Report]:
    """Yield all reports of a worker."""
    for path in sorted(worker.folder.glob("counters-*.reports")):
        for line in path.read_text().splitlines():
            yield Report(*json.loads(line))


def _reported(worker: Worker, ids: set[str], began: float, last: float) -> Iterator[str]:
    for report in reports_of(worker):
        at = report.at - began
        if report.session in ids or (not report.session and -_BEFORE < at - last < _AFTER):
            yield f"{at:6.2f} {' '.join(map(str, report[1:]))}"


def _known(worker: Worker, cookie: str | None) -> dict[str, Any]:
    if cookie is None:
        return {}
    answer = Browser(worker.url).get(f"/known/{digest_of_cookie(cookie)}")
    return dict(answer.json) if answer.ok else {"answer": answer.status}
