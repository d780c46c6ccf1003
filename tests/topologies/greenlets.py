"""A program under gevent: greenlets read sessions, and many of them are ended in the middle of it.

``python -m tests.topologies.greenlets REDIS_URL FOLDER`` writes how often what happened, as JSON.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402

import gevent  # noqa: E402
from flask import Flask  # noqa: E402

from devservers.constants import extended  # noqa: E402
from flask_langpont_session.extension import state_of  # noqa: E402
from flask_langpont_session.stores.redis.store import RedisStore  # noqa: E402
from tests.topologies.conftest import PATIENT  # noqa: E402
from tests.topologies.crossing import Readers, fill  # noqa: E402


def main(url: str, folder: str) -> None:
    """Greenlets that read until they are ended, and one that ends them."""
    app = Flask("app", instance_path=folder)
    settings = {"REDIS_URL": f"{url}?max_connections=5000", **PATIENT}
    app.config.update(SECRET_KEY="test key of the test suite, 32+ bytes", TESTING=True)
    app.config.update({f"LANGPONT_SESSION_{key}": value for key, value in settings.items()})
    extended(app)
    store = state_of(app).backend.primary
    assert isinstance(store, RedisStore)
    digests = fill(store, 20)
    seen: Counter[str] = Counter()
    for seed in range(5):
        seen.update(_round(store, digests, seed))
    sys.stdout.write(json.dumps(seen))


def _round(store: RedisStore, digests: list[str], seed: int) -> Counter[str]:
    """Half of them end by a time-out of gevent's, half are killed; those that come after them read at once."""
    readers = [Readers(store, digests, seed * 100 + number) for number in range(20)]
    chance = random.Random(seed)
    limits = [chance.uniform(0, 0.02) if number % 2 else None for number in range(20)]
    greenlets = [gevent.spawn(_read, *each) for each in zip(readers, limits, strict=True)]
    for greenlet in greenlets[::2]:
        gevent.sleep(chance.uniform(0, 0.002))
        greenlet.kill()
    for reader in readers:
        reader.read()
    gevent.joinall(greenlets)
    return sum((reader.seen for reader in readers), Counter[str]())


def _read(reader: Readers, seconds: float | None) -> None:
    try:
        with gevent.Timeout(seconds):
            while True:
                reader.read()
    except (gevent.Timeout, gevent.GreenletExit) as end:
        reader.seen[type(end).__name__] += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
