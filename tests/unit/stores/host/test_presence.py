"""The workers of a host that live, and what each of them has said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.stores.host import presence
from flask_langpont_session.stores.host.presence import Presence
from flask_langpont_session.support.locks import takes
from tests.support.journals import in_fork

Join = Callable[[], Presence]


@pytest.fixture(params=["file", "memory"])
def join(request: pytest.FixtureRequest, path: Path) -> Join:
    """Return a function that makes another worker of the host."""
    words: dict[Presence, str] = {}
    return lambda: Presence(path if request.param == "file" else None, words)


def words_beside(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}-worker-*"))


def test_each_hears_the_latest_word_of_the_others(join: Join) -> None:
    """A shorter one leaves nothing of a longer one. A worker that has said nothing is none."""
    one, other, _ = join(), join(), join()
    assert one.say("a long word") and one.say("short") and other.say("other")
    assert (one.others(), other.others()) == (["other"], ["short"])


def test_one_that_ends_is_a_worker_no_longer(join: Join) -> None:
    """It may end twice, and may begin again."""
    one, other = join(), join()
    one.say("one")
    one.end()
    one.end()
    assert other.others() == []
    one.say("again")
    assert other.others() == ["again"]


@pytest.mark.parametrize("begins", [False, True], ids=["one that reads", "one that begins"])
def test_what_a_killed_worker_leaves_is_removed_by_another(path: Path, begins: bool) -> None:
    """The system has taken its lock back."""
    killed, other = Presence(path, {}), Presence(path, {})
    killed.say("killed")
    [left] = words_beside(path)
    killed.forget()  # its descriptor is closed, as by a kill
    assert left.exists()
    assert other.say("other") if begins else other.others() == []
    assert not left.exists()


def test_a_file_that_was_taken_for_that_of_a_killed_worker_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the making of it and its lock another worker may have removed it."""
    one, other = Presence(path, {}), Presence(path, {})
    removed: list[Path] = []

    def late(descriptor: int) -> bool:
        if not removed:
            removed.extend(words_beside(path))
            removed[0].unlink()
        return takes(descriptor)

    monkeypatch.setattr(presence, "takes", late)
    one.say("one")
    assert (len(removed), other.others()) == (1, ["one"])


def test_a_forked_child_is_another_worker(path: Path) -> None:
    """Its parent goes on, and what it says is the parent's."""
    parent = Presence(path, {})
    parent.say("parent")
    assert in_fork(parent.others) == "['parent']"
    assert Presence(path, {}).others() == ["parent"]


def test_without_a_folder_there_are_no_others_and_nothing_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    worker = Presence(tmp_path / "folder" / "journal", {})
    assert worker.others() == []
    with pytest.raises(StoreError, match="journal: unreachable"):
        worker.say("word")
    worker.end()
