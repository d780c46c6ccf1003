"""A session over a repository that notes what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fakes import Maker, Repository, settings_in


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(settings_in(tmp_path))


@pytest.fixture
def maker(repository: Repository) -> Maker:
    return Maker(repository)
