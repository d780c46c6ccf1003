"""Two applications in one process."""

from __future__ import annotations

from pathlib import Path

from devservers.servers import Valkey
from tests.integration.behind import sign_in, wait_until_home, wait_until_lost
from tests.integration.conftest import parts

from .conftest import MakeApp


def test_applications_in_one_process_do_not_share_an_outage(make_app: MakeApp, tmp_path: Path) -> None:
    """Each has its prefix, its database and its servers: one loses Redis, the other notices nothing."""
    with Valkey(tmp_path / "server") as server, Valkey(tmp_path / "other", appendonly=False) as other:
        one = make_app(REDIS_URL=server.url, KEY_PREFIX="one")
        two = make_app(REDIS_URL=other.url, KEY_PREFIX="two", DATABASE_URL=f"sqlite:///{tmp_path / 'two.sqlite3'}")
        here, there = sign_in(one, "7", lang="jp"), sign_in(two, "8", lang="en")
        server.kill()
        here.get("/who")
        wait_until_lost(one, "primary")
        assert here.get("/who").json == {"user": "7", "level": 2, "lang": None}
        for _ in range(5):
            assert there.get("/who").json == {"user": "8", "level": 0, "lang": "en"}
            parts(two).monitor.tick()
        assert not parts(two).health.open_stores()
        server.start()
        wait_until_home(one)
        assert here.get("/who").json == {"user": "7", "level": 0, "lang": "jp"}
        with server.client() as client, other.client() as second:
            assert {str(key).split(":")[0] for key in client.keys("*")} == {"one"}
            assert {str(key).split(":")[0] for key in second.keys("*")} == {"two"}
