"""cfn-lint has nothing to say about the templates, informational remarks included, and nothing is switched off."""

from __future__ import annotations

from pathlib import Path

import pytest
from cfnlint.api import lint_file  # type: ignore[import-untyped]
from cfnlint.config import ManualArgs  # type: ignore[import-untyped]

from tests.infra.template import REGION, SERVERLESS_TEMPLATE, TEMPLATE


@pytest.mark.timeout(400)  # 15 seconds of a quiet machine
@pytest.mark.parametrize("template", [TEMPLATE, SERVERLESS_TEMPLATE], ids=lambda path: path.stem)
def test_cfn_lint_is_silent(template: Path) -> None:
    """Errors, warnings and remarks."""
    found = lint_file(template, config=ManualArgs(regions=[REGION], include_checks=["I", "W", "E"]))
    assert [str(match) for match in found] == []
    assert "cfn-lint" not in template.read_text() and "ignore_checks" not in template.read_text()
