"""Workers never draw the same numbers."""

from __future__ import annotations

import random

from flask_langpont_session.stores.redis.commands import new_write_id
from flask_langpont_session.support.chance import CHANCE
from tests.support.children import in_child


def test_an_application_that_seeds_makes_no_two_writes_the_same() -> None:
    """An id that two workers use would make the one's write look like the other's that was repeated."""

    def seeded() -> str:
        random.seed(1)
        return new_write_id()

    assert len({seeded() for _ in range(100)}) == 100


def test_a_forked_child_draws_other_numbers() -> None:
    mine = [CHANCE.getrandbits(64) for _ in range(3)]
    assert in_child(lambda: [CHANCE.getrandbits(64) for _ in range(3)] != mine)
