"""The size of a session of 1 KB in a worker, counted object by object, and that MEMORY_BYTES goes by it."""

from __future__ import annotations

import pytest

from flask_langpont_session.stores.memory import memory as module
from flask_langpont_session.stores.memory.ended import Ended
from flask_langpont_session.stores.redis.lane import Lane
from flask_langpont_session.stores.redis.server_identity import Server
from flask_langpont_session.stores.redis.wire import HEARS
from tests.support.sizes import room_of

from .behind import sign_in
from .conftest import MakeApp, parts

pytestmark = pytest.mark.skipif(not HEARS, reason="hiredis is too old to tell messages from replies")

SESSIONS = 200
"""Of which a tenth are in use, as 256 are of some thousands."""

OTHERS = Lane, Server, Ended


@pytest.mark.parametrize(
    ("is_signed_in", "most", "reads"),
    [(False, 2700, 0), (True, 4000, 1), (False, 2700, 3)],
    ids=["visitors, written", "users, read", "visitors, read again"],
)
def test_a_session_takes_what_is_said_of_it(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, is_signed_in: bool, most: int, reads: int
) -> None:
    """Within a fifth: so MEMORY_BYTES bounds what a worker really takes."""
    monkeypatch.setattr(module, "OPEN", SESSIONS // 10)
    app = make_app()
    memory = parts(app).backend.memory
    parts(app).monitor.tick()
    here = [sign_in(app) if is_signed_in else app.test_client() for _ in range(SESSIONS)]
    for number, one in enumerate(here):
        one.post("/set", json={"source_lang": "l" * 480, "input_text": f"{number:480}", "theme": "dark"})
    for _ in range(reads):
        for one in here:
            assert len(str(one.get("/get/input_text").json)) > 480
    counted = room_of(memory, without=OTHERS)
    assert memory.sessions >= SESSIONS
    assert 0.8 < memory.used / counted < 1.2
    assert counted / memory.sessions < most
