"""Blocks for a shell that cannot be run here: a shell can read them, the commands of AWS exist with their options,
and settings in the environment are accepted.
"""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from botocore import xform_name
from botocore.session import Session

from flask_langpont_session.config.settings import Settings

from .pages import PAGES, ROOT, blocks_of

ALL = [*PAGES, ROOT / "infra" / "README.md"]
OF_THE_PROGRAM = {("cloudformation", "deploy")}
"""Commands of the program `aws` that are no operation of a service. Their parameters are tested in tests/infra."""

_AWS = re.compile(r"(?:^|[`(\s])aws ([a-z]+) ([a-z-]+)((?:\s+(?:\\\n\s*)?[^\s`|)]+)*)", re.MULTILINE)
_VARIABLE = re.compile(r"\bFLASK_LANGPONT_SESSION_([A-Z_]+[A-Z])")


def of_language(language: str) -> list[tuple[str, str]]:
    return [(f"{page.name}:{block.line}", block.text) for page in ALL for block in blocks_of(page, language)]


@pytest.mark.parametrize(("where", "text"), of_language("sh"))
def test_a_shell_reads_it(where: str, text: str) -> None:
    """The shell reads the block, and does not run it."""
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, ""), where


@pytest.mark.parametrize(("where", "text"), of_language("json"))
def test_it_is_json(where: str, text: str) -> None:
    assert json.loads(text)


def aws_commands() -> set[tuple[str, str, str]]:
    """Service, operation, and all that follows."""
    found = {match.groups() for page in ALL for match in _AWS.finditer(page.read_text(encoding="utf-8"))}
    return {(service, operation, rest) for service, operation, rest in found if "--" in rest}


@pytest.mark.parametrize(("service", "operation", "rest"), sorted(aws_commands()))
def test_a_command_of_aws_has_these_options(service: str, operation: str, rest: str) -> None:
    """The options are those of the service's model that boto3 brings."""
    if (service, operation) in OF_THE_PROGRAM:
        return
    model = Session().get_service_model(service)
    [name] = [name for name in model.operation_names if xform_name(name, "-") == operation]
    shape = model.operation_model(name).input_shape
    assert shape is not None
    options = {xform_name(member, "-") for member in shape.members} | {"query", "output", "region"}
    given = set(re.findall(r"--([a-z-]+)", rest))
    assert {option.removeprefix("no-") for option in given} <= options
    required = {xform_name(member, "-") for member in shape.required_members}
    assert required <= given


def test_every_variable_is_a_setting() -> None:
    """Variables of all pages, and of the files that they install, are settings."""
    files = [*ALL, ROOT / "docker-compose.yml", *(ROOT / "infra").rglob("*.*")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in (".md", ".yml", ".yaml", ".service")]
    named = {name for text in texts for name in _VARIABLE.findall(text)}
    assert len(named) > 8
    assert {name.lower() for name in named} <= set(Settings.__dataclass_fields__)


def test_the_commands_are_found() -> None:
    """Commands that go on in the next line are found, too."""
    commands = {(service, operation) for service, operation, _ in aws_commands()}
    assert commands >= {("elasticache", "describe-events"), ("elasticache", "modify-user"), *OF_THE_PROGRAM}
