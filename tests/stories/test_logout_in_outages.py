"""A logout is for ever: whatever was down when it came, whichever process dies right after it, whatever comes back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from devservers.processes import wait_until
from tests.support.auth_records import says

from .site import Site, health, restarted_from
from .watch import Watch


def test_I1_I5_a_logout_while_the_primary_is_dead_outlives_its_old_file(site: Site, tmp_path: Path) -> None:
    """The primary comes back with the live session in its file. No worker of either host shows it again.

    One worker of each host is asked nothing in the meantime: it has seen the session alive, and nothing since.
    """
    lab, visitor = site.lab, site.visitor()
    digest = visitor.digest
    (asleep_1, *awake_1), (asleep_2, *awake_2) = site.preloaded.doors().items(), site.lazy.doors().items()
    asleep, awake = dict([asleep_1, asleep_2]), dict([*awake_1, *awake_2])
    with Watch(visitor, awake) as watch, site.held(visitor.at(awake_2[0][1])) as late:
        watch.sees(level=0, user="hanako")
        died = lab.primary.pid
        lab.primary.kill()
        watch.sees(level=1, on=dict(awake_1))
        watch.sees(level=2, on=dict(awake_2))
        answer = visitor.at(awake_1[0][1]).send("/sign-out")
        assert answer.status == 200 and answer.json["level"] == 1
        watch.sees(user=None)
        assert site.row(digest)["live"] is False

        with restarted_from(lab.primary, tmp_path / "copy") as copy, copy.client() as redis:
            assert says(redis, f"session:auth:{{{digest}}}")["@live"] == "1"

        lab.primary.start()
        assert lab.primary.pid != died
        site.heal()
        watch.follow(asleep)
        watch.sees(level=0)
        assert late.answer().set_cookies == ()
        watch.goes_on()
    # Once each was signed in, once each was not: none went back.
    assert watch.courses("user", on=awake) == [["hanako", None]]
    assert watch.courses("user", on=asleep) == [[None]]
    assert (watch.statuses(), watch.set_cookies()) == ({200}, 0)
    assert site.auth_record(digest)["@live"] == "0"
    assert site.row(digest)["live"] is False


@pytest.mark.parametrize("redis_too", [False, True], ids=["redis_up", "redis_down_too"])
def test_I1_a_logout_with_the_database_down_outlives_its_worker(site: Site, redis_too: bool) -> None:
    """The worker that served it is killed right after its answer. The journal and its siblings bring it home.

    One of them is asked nothing in the meantime.
    """
    lab, visitor = site.lab, site.visitor()
    digest, workers = visitor.digest, site.doors()
    (killed, door), asleep, *siblings = site.lazy.doors().items()
    watched = {pid: url for pid, url in workers.items() if pid != asleep[0]}
    with Watch(visitor, watched) as watch:
        lab.database.kill()
        if redis_too:
            lab.primary.kill()
            lab.replica.kill()
        wait_until(lambda: not any(health(url)["logins"] for url in workers.values()), "the outage")
        watch.sees(level=4 if redis_too else 0, user="hanako")
        assert visitor.at(door).send("/sign-out").status == 200
        os.kill(killed, signal.SIGKILL)
        assert site.revocations(site.lazy) == {digest}
        watch.sees(user=None, on=dict(siblings))

        site.heal()
        wait_until(lambda: site.row(digest)["live"] is False, "the end of the session in SQL")
        [newcomer] = site.lazy.doors().keys() - workers.keys()
        assert killed not in site.doors()
        late = {pid: site.lazy.doors()[pid] for pid in (asleep[0], newcomer)}
        watch.follow(late)
        watch.sees(user=None, level=0, on=site.doors())
        watch.goes_on()
    assert watch.courses("user", on=watched.keys() - {killed}) == [["hanako", None]]
    assert watch.courses("user", on=late) == [[None]]
    assert (watch.statuses(), watch.set_cookies()) == ({200}, 0)
    assert site.row(digest)["version"] == 2
    assert site.auth_record(digest)["@live"] == "0"
    assert site.revocations(site.lazy) == set()
