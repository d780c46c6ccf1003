"""Hooks and fixtures that spare the test processes repeated work."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import signal
import ssl
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.routing import Rule
from xdist.scheduler import LoadFileScheduling

from tests.support.on_time import never_late
from tests.support.turns import next_of, unit_of

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has what runs in its background ignore Ctrl-C, and programs that tests start and interrupt would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class InTurns(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """A process is given a whole file at a time, or a whole folder, in the order of :mod:`tests.support.turns`."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)

    def _size_of(self, unit: str) -> int:
        path: Path = self.config.rootpath / unit
        return path.stat().st_size

    def _assign_work_unit(self, node: Any) -> None:
        unit = next_of(self.workqueue, computes=node.gateway.id == "gw0", size=self._size_of)
        self.workqueue.move_to_end(unit, last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Return the scheduler for ``--dist loadfile``."""
    return InTurns(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests, and keep what was imported from the garbage collector: it stays until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(7_000)  # ten times as many objects as usual: it is a twentieth of all work otherwise
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests whose outcome depends on the speed of the machine have a second try. No other test has one."""
    for item in items:
        marker = item.get_closest_marker("real_time")
        if marker is not None:
            (reason,) = marker.args
            assert reason, f"{item.nodeid}: say why it needs the real time"
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """pytest looks twice now, for a warning about what nothing refers to; from a process of xdist it would reach no
    report any more."""
    if hasattr(session.config, "workerinput"):
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def models_of_aws_are_read_once() -> Iterator[None]:
    """botocore reads its models, megabytes of JSON, anew for each of its sessions."""
    import botocore.loaders
    import botocore.session

    loader = botocore.loaders.create_loader()

    def the_same(_: str | None = None) -> Any:
        return loader

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", the_same)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_authority_of_the_machine_is_trusted() -> Iterator[None]:
    """PyMySQL reads all its certificates anew for each connection, which takes longer than most questions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def versions_of_packages_are_read_once() -> Iterator[None]:
    """redis-py searches what is installed for its own version whenever a client is made, which takes nearly as long as
    all else of a client that asks one question."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "version", functools.cache(importlib.metadata.version))
        yield


@pytest.fixture(scope="session", autouse=True)
def urls_are_compiled_when_one_is_built() -> Iterator[None]:
    """Werkzeug compiles two functions for each route of each application; few tests build a URL."""
    compile_now = Rule._compile_builder

    def compile_later(rule: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = functools.cache(lambda: compile_now(rule, append_unknown))
        return lambda rule, /, **values: compiled()(rule, **values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", compile_later)
        yield


@pytest.fixture
def on_time() -> Iterator[None]:
    """See :func:`~tests.support.on_time.never_late`."""
    with never_late():
        yield
