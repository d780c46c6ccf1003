"""The environments as infra/README.md deploys them: what is documented is what is tested."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.infra.template import INFRA, SERVERLESS_TEMPLATE, TEMPLATE

README = INFRA / "README.md"

SHELL = {
    "VPC": "vpc-0a1b2c3d",
    "SUBNETS": "subnet-0a1b2c3d,subnet-1a2b3c4d",
    "APP_SG": "sg-0a1b2c3d",
    "BASTION_SG": "sg-1a2b3c4d",
    "APP_ROLE": "langpont-app",
    "BUCKET": "a-bucket",
}
"""The shell variables of the commands."""


@cache
def commands(template: Path = TEMPLATE) -> dict[str, dict[str, str]]:
    """Environment → the parameters of its ``aws cloudformation deploy`` command."""
    found = {}
    for block in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL):
        if f"deploy --template-file infra/{template.name} " not in block:
            continue
        filled = re.sub(r"\$\{?(\w+)\}?", lambda name: SHELL[name[1]], block.replace("\\\n", " "))
        words = shlex.split(filled, comments=True)
        pairs = dict(word.split("=", 1) for word in words[words.index("--parameter-overrides") + 1 :])
        found[pairs["Environment"]] = pairs
    return found


def parameters(environment: str, **changes: object) -> dict[str, object]:
    """The parameters of an environment, lists split, with some of them changed."""
    return _split(commands()[environment]) | changes


def serverless_parameters(**changes: object) -> dict[str, object]:
    """The same of the command for a serverless cache."""
    return _split(commands(SERVERLESS_TEMPLATE)["production"]) | changes


def _split(given: Mapping[str, str]) -> dict[str, object]:
    return {**given, "SubnetIds": given["SubnetIds"].split(",")}
