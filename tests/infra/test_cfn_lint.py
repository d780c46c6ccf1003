"""cfn-lint has nothing to say about the template, informational remarks included, and nothing is switched off."""

from __future__ import annotations

from cfnlint.api import lint_file  # type: ignore[import-untyped]
from cfnlint.config import ManualArgs  # type: ignore[import-untyped]

from tests.infra.template import REGION, TEMPLATE


def test_cfn_lint_is_silent() -> None:
    found = lint_file(TEMPLATE, config=ManualArgs(regions=[REGION], include_checks=["I", "W", "E"]))
    assert [str(match) for match in found] == []
    assert "cfn-lint" not in TEMPLATE.read_text() and "ignore_checks" not in TEMPLATE.read_text()
