"""cfn-lint has nothing to say about the templates, informational remarks included, and nothing is switched off."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint_file  # type: ignore[import-untyped]
from cfnlint.config import ManualArgs  # type: ignore[import-untyped]
from cfnlint.decode import decode  # type: ignore[import-untyped]

from tests.infra.template import REGION, SERVERLESS_TEMPLATE, TEMPLATE

OTHERS = re.compile(r"Shard(?!1Node[12])\dNode\d")
"""What belongs to other nodes than the first two. It is the same as theirs (`alarm_coverage`), and most of the linter's
time goes into its conditions."""


def of_two_nodes(node: Any) -> Any:
    """A template without what belongs to other nodes."""
    if isinstance(node, list):
        return [of_two_nodes(item) for item in node if not OTHERS.fullmatch(str(item))]
    if not isinstance(node, dict):
        return node
    if OTHERS.search(str(node.get("Fn::If", [""])[0])):
        return of_two_nodes(node["Fn::If"][2])
    return {key: of_two_nodes(value) for key, value in node.items() if not OTHERS.search(key)}


@pytest.mark.parametrize("template", [TEMPLATE, SERVERLESS_TEMPLATE], ids=lambda path: path.stem)
def test_cfn_lint_is_silent(template: Path, tmp_path: Path) -> None:
    """Errors, warnings and remarks."""
    read, unreadable = decode(str(template))  # which sees a key that is there twice
    (tmp_path / "template.json").write_text(json.dumps(of_two_nodes(read), indent=1, default=str))
    options = ManualArgs(regions=[REGION], include_checks=["I", "W", "E"])
    found = [*unreadable, *lint_file(tmp_path / "template.json", config=options)]
    assert [str(match) for match in found] == []
    text = template.read_text()
    assert "cfn-lint" not in text and "ignore_checks" not in text


def test_cfn_lint_sees_what_no_rule_looks_for(tmp_path: Path) -> None:
    """A property that there is not, one that is missing, and a reference to nothing."""
    read = json.loads(json.dumps(decode(str(SERVERLESS_TEMPLATE))[0], default=str))
    read["Resources"]["Cache"]["Properties"] |= {"Nonsense": 1, "KmsKeyId": {"Ref": "Nowhere"}}
    del read["Resources"]["Cache"]["Properties"]["Engine"]
    (tmp_path / "template.json").write_text(json.dumps(read))
    found = lint_file(tmp_path / "template.json", config=ManualArgs(regions=[REGION]))
    assert {match.rule.id for match in found} >= {"E3002", "E3003", "E1020"}
