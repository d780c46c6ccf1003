"""The state of a site, look by look.

A process that has just started knows nothing of what the site's workers have found out. So this asks what the workers
say themselves, on their health pages and in the files of this host, and the stores, from where it runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...policy import levels
from ...policy.causes import Cause, cause_of
from ...policy.errors import StoreError, role_of, shard_of
from ...policy.health import DATABASE, PRIMARY, REPLICA
from ...stores.backend import Backend
from ...stores.host.journal import Waiting
from ...stores.host.opening import path_of
from .findings import Unknown
from .health_page import Page, read_page
from .one_session import journal_there
from .read_host import lost_by_redis, workers_of
from .stores_now import StoreAnswer, ask_store


@dataclass(frozen=True, slots=True)
class Look:
    """The results of one look.

    :param at: seconds since 1970.
    :param pages: what the workers say; empty: no page was named.
    :param stores: what each store answered.
    :param outage_age: seconds since a Redis answered reads, as far as this has seen it.
    :param local_ttl: LOCAL_CACHE_TTL.
    :param journal: what waits on this host; None: there is no file.
    :param processes: how many use the journal of this host; None: that cannot be seen, or there is no file.
    :param announced: stores whose loss a worker of this host has announced to the others.
    :param remarks: what is to be known of stores that do their work.
    """

    at: float
    pages: Sequence[Page]
    stores: Mapping[str, StoreAnswer]
    outage_age: float
    local_ttl: float
    journal: Waiting | Unknown | None
    processes: int | None
    announced: Sequence[str] = ()
    remarks: Sequence[tuple[str, Cause]] = ()

    @property
    def reports(self) -> list[Mapping[str, Any]]:
        """Return the reports of the pages that have answered."""
        return [page.report for page in self.pages if page.report]

    @property
    def level(self) -> int:
        """Return the worst level that a worker reports; without any report, the one that a worker would find now."""
        return max((report["level"] for report in self.reports), default=self._found_level)

    @property
    def _found_level(self) -> int:
        shards = {shard_of(name) for name in self.stores if role_of(name) == PRIMARY}
        return max((self._level_of(shard) for shard in shards), default=0)

    def _level_of(self, shard: str) -> int:
        answers = {name: answer.problem is None for name, answer in self.stores.items()}
        writes = answers[f"{PRIMARY}{shard}"]
        return levels.level(
            reads=writes or answers.get(f"{REPLICA}{shard}", False),
            writes=writes,
            database=answers.get(DATABASE, False),
            outage_age=self.outage_age,
            local_ttl=self.local_ttl,
        )

    @property
    def refuses_sign_ins(self) -> bool:
        """Return whether a worker says that sign-ins are refused; without any report, whether the database takes no
        writes from here."""
        if self.reports:
            return not all(report.get("logins", True) for report in self.reports)
        return self.stores[DATABASE].problem is not None

    @property
    def is_well(self) -> bool:
        """Return whether every page and every store reports no problem, at level 0, and users can sign in."""
        problems = [page.problem for page in self.pages] + [answer.problem for answer in self.stores.values()]
        refused = self.level > 0 or self.refuses_sign_ins
        return not refused and not any(problems) and not isinstance(self.journal, Unknown)

    def unused(self, store: str) -> list[str]:
        """Return the directions in which a worker says that requests do not use a store."""
        return sorted(
            {
                way
                for report in self.reports
                for way, is_used in report["stores"].get(store, {}).items()
                if not is_used and (role_of(store), way) != (REPLICA, "write")
            }
        )


class Watcher:
    """Looks at a site again and again.

    :param pages: the addresses of health pages.
    :param patience: seconds that a store or a page is waited for.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        backend: Backend,
        pages: Sequence[str] = (),
        *,
        patience: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._pages = pages
        self._patience = patience
        self._clock = clock
        self._lost_at: float | None = None

    def look(self) -> Look:
        """Look once. All that may have to be waited for is asked at the same time."""
        backend, patience, asker = self._backend, self._patience, f"look-{os.getpid()}"
        names = [*backend.find_stores(patience), DATABASE]
        with ThreadPoolExecutor(len(names) + len(self._pages)) as threads:
            stores = threads.map(lambda name: ask_store(backend, name, asker, patience), names)
            pages = threads.map(partial(read_page, timeout=patience), self._pages)
            found = dict(zip(names, stores, strict=True))
        for name in [name for name in names if role_of(name) == REPLICA and found[name].problem is None]:
            primary_answers = found[f"{PRIMARY}{shard_of(name)}"].problem is None
            if primary_answers and (error := backend.promotion_of(name)) is not None:
                found[name] = StoreAnswer(found[name].took, cause_of(error).word, error)
        waiting, announced = self._on_host()
        return Look(
            at=time.time(),
            pages=tuple(pages),
            stores=found,
            outage_age=self._outage_age(found),
            local_ttl=backend.settings.local_cache_ttl,
            journal=waiting,
            processes=self._processes(),
            announced=announced,
            remarks=tuple(backend.remarks(time.time(), lost_by_redis(backend.journal.file.path))),
        )

    def _outage_age(self, stores: Mapping[str, StoreAnswer]) -> float:
        if any(answer.problem is None for name, answer in stores.items() if name != DATABASE):
            self._lost_at = None
        elif self._lost_at is None:
            self._lost_at = self._clock()
        return 0.0 if self._lost_at is None else self._clock() - self._lost_at

    def _on_host(self) -> tuple[Waiting | Unknown | None, Sequence[str]]:
        journal = journal_there(self._backend)
        if journal is None:
            return None, ()
        try:
            return journal.waiting(), tuple(journal.board.outages())
        except StoreError as error:
            return Unknown(str(error), error), ()

    def _processes(self) -> int | None:
        path = self._backend.journal.file.path
        found = workers_of(path) if path is not None and path_of(path).exists() else Unknown("there is none")
        return None if isinstance(found, Unknown) else len(found)
