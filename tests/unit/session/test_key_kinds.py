"""What becomes of a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_langpont_session.session.key_kinds import KeyKind, kinds_of
from tests.support.fakes import settings_in


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("theme", KeyKind.STORED),
        ("of no feature", KeyKind.STORED),
        ("user_id", KeyKind.STORED),
        ("_remember", KeyKind.TRANSIENT),
        ("_permanent", KeyKind.PERMANENT),
        ("csrf_token", KeyKind.TOKEN),
        ("session_created", KeyKind.KEPT),
    ],
)
def test_each_key_has_a_kind(tmp_path: Path, key: str, kind: KeyKind) -> None:
    settings = settings_in(tmp_path)
    kind_of = kinds_of(settings.table, settings.transient_key_patterns)
    assert [kind_of(key), kind_of(key)] == [kind, kind]
