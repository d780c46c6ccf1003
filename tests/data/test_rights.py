"""A logout is for ever and a change of role is seen everywhere, whatever was down when it came, and whichever process
dies right after it. Every worker is looked at without a pause."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session.policy.ids import digest_of
from flask_langpont_session.stores.host.journal import journal_at
from flask_langpont_session.stores.sql.tables import SESSIONS
from tests.faults.proxy import HANG
from tests.support.auth_records import says
from tests.support.site.browser import Browser
from tests.support.site.hosts import Host, Stage, Worker

from .conftest import HostMaker
from .support import at_level, held, home, look, send
from .watch import Watch

LEASES = {"VERIFY_INTERVAL": 60, "GRACE": 300}


def signed_in(*workers: Worker) -> tuple[Browser, str]:
    """Return a browser of user 7, whom each worker has seen, and the digest of the session."""
    browser = Browser(workers[0].url)
    send(browser, workers[0], "/sign-in", user="7")
    for worker in workers:
        assert look(browser, worker, 0)["user"] == "7"
    return browser, digest_of(str(browser.cookie).split(".")[0])


def row(stage: Stage, digest: str) -> sa.RowMapping:
    """Return the row of a session."""
    engine = sa.create_engine(stage.database.url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return connection.execute(sa.select(SESSIONS).where(SESSIONS.c.digest == digest)).mappings().one()


def record(redis: Valkey, digest: str) -> Mapping[str, str]:
    """Return what a Redis says of the auth of a session."""
    with redis.client() as client:
        return says(client, f"session:auth:{{{digest}}}")


def revocations(host: Host) -> set[str]:
    """Return the digests of the sessions whose end waits in a host's journal."""
    journal = journal_at(host.workers[0].journal)
    try:
        return {entry.digest for entry in journal.revocations.pending()}
    finally:
        journal.close()


def test_i1_i5_a_logout_while_redis_is_dead_outlives_its_old_file(
    stage: Stage, host: HostMaker, tmp_path: Path
) -> None:
    """Redis comes back with the live session in its file. No worker of either host shows the session again, nor does
    one of each host that has seen it alive, and was asked nothing since."""
    with host("a", **LEASES) as a, host("b", **LEASES) as b:
        awake, asleep = zip(a.workers, b.workers, strict=True)
        browser, digest = signed_in(*awake, *asleep)
        with Watch(browser, awake) as watch:
            watch.sees(level=0, user="7")
            stage.redis.kill()
            watch.sees(level=2)
            at_level(2, *awake)  # the first answer there may be of the one request whose connection was cut
            send(browser.twin(), awake[0], "/sign-out", 2)
            watch.sees(user=None)
            assert not row(stage, digest)["live"]
            shutil.copytree(stage.redis.folder / "appendonlydir", tmp_path / "copy" / "appendonlydir")
            with Valkey(tmp_path / "copy") as copy:
                assert record(copy, digest)["@live"] == "1"
            stage.redis.start()
            home(*awake, *asleep)
            watch.follow(*asleep)
            watch.sees(level=0)
            watch.goes_on()
    assert watch.courses("user", on=awake) == [["7", None]]
    assert watch.courses("user", on=asleep) == [[None]]
    assert (watch.statuses(), watch.set_cookies()) == ({200}, 0)
    assert record(stage.redis, digest)["@live"] == "0"


@pytest.mark.parametrize("redis_too", [False, True], ids=["redis is up", "redis is down too"])
def test_i1_a_logout_with_the_database_down_outlives_its_worker(stage: Stage, host: HostMaker, redis_too: bool) -> None:
    """The worker that served the logout is killed right after its answer. The journal and its siblings bring it home,
    though one of them is asked nothing meanwhile."""
    with host("a", workers=3, **LEASES) as a:
        killed, asleep, sibling = a.workers
        browser, digest = signed_in(*a.workers)
        with Watch(browser, [killed, sibling]) as watch:
            stage.database.kill()
            if redis_too:
                stage.redis.kill()
            wait_until(lambda: not any(each.state()["status"]["logins"] for each in a.workers), "the outage")
            watch.sees(level=4 if redis_too else 0, user="7")
            send(browser.twin(), killed, "/sign-out")
            killed.kill()
            assert revocations(a) == {digest}
            watch.sees(user=None, on=[sibling])
            stage.database.start()
            stage.redis.start()
            wait_until(lambda: not row(stage, digest)["live"], "the end of the session in the database")
            killed.start()
            home(*a.workers)
            watch.follow(killed, asleep)
            watch.sees(user=None, level=0)
            watch.goes_on()
        assert watch.courses("user", on=[sibling]) == [["7", None]]
        assert watch.courses("user", on=[killed, asleep]) == [[None]]
        assert (watch.statuses(), watch.set_cookies()) == ({200}, 0)
        assert row(stage, digest)["version"] == 2
        assert record(stage.redis, digest)["@live"] == "0"
        assert revocations(a) == set()


def test_i33_a_logout_reaches_redis_though_the_database_hangs_and_the_journal_is_held(stage: Stage) -> None:
    """By a worker that is new: the first answers of its database are waited for longest."""
    with stage.host("a", 1, HEALTH_INTERVAL=0.2) as a:
        [worker] = a.workers
        browser, digest = signed_in(worker)
        worker.database.impose(HANG)
        with held(worker.journal):
            assert send(browser, worker, "/sign-out")["kept"] in ("redis", "nowhere")
            wait_until(lambda: record(stage.redis, digest)["@live"] == "0", "the end of the session in Redis")
            assert worker.database.hits["hang"]
            assert revocations(a) == set()
        worker.database.heal()
        home(worker)
        assert not row(stage, digest)["live"]


def test_i4_a_role_change_on_a_host_without_redis_never_flickers(stage: Stage, host: HostMaker) -> None:
    """The change is seen at once on the worker that made it, on its sibling, and on the other host within
    VERIFY_INTERVAL. The next change comes from there. What the first host had kept for Redis is old by then."""
    with host("a", **LEASES) as cut_off, host("b") as other:
        everywhere = [*cut_off.workers, *other.workers]
        browser, digest = signed_in(*everywhere)
        ways = [worker.redis for worker in cut_off.workers]
        with Watch(browser, everywhere) as watch:
            watch.sees(level=0, role="role-0")
            for way in ways:
                way.impose(HANG)
            watch.sees(level=2, on=cut_off.workers)
            change_role(browser, cut_off.workers[0], "role-1")
            watch.sees(role="role-1")
            change_role(browser, other.workers[0], "role-2")
            watch.sees(role="role-2")
            assert all(worker.level == 2 for worker in cut_off.workers)
            assert all(way.hits["hang"] for way in ways)
            for way in ways:
                way.heal()
            watch.sees(level=0)
            home(*everywhere)
            watch.goes_on()
    assert watch.courses("role") == [["role-0", "role-1", "role-2"]]
    assert (watch.statuses(), watch.set_cookies()) == ({200}, 0)
    assert json.loads(row(stage, digest)["payload"])["user_role"] == "role-2"
    assert record(stage.redis, digest)["@v"] == "3"


def change_role(browser: Browser, worker: Worker, role: str) -> None:
    """Change it, and see it at once on the worker that did."""
    send(browser, worker, "/role", role=role)
    assert look(browser, worker)["role"] == role
