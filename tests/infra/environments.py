"""The environments as infra/README.md deploys them: what is documented is what is tested."""

from __future__ import annotations

import re
import shlex
from functools import cache

from tests.infra.template import INFRA

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
def commands() -> dict[str, dict[str, str]]:
    """Environment → the parameters of its ``aws cloudformation deploy`` command."""
    found = {}
    for block in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL):
        if "cloudformation deploy" not in block:
            continue
        filled = re.sub(r"\$\{?(\w+)\}?", lambda name: SHELL[name[1]], block.replace("\\\n", " "))
        words = shlex.split(filled, comments=True)
        pairs = dict(word.split("=", 1) for word in words[words.index("--parameter-overrides") + 1 :])
        found[pairs["Environment"]] = pairs
    return found


def parameters(environment: str, **changes: object) -> dict[str, object]:
    """The parameters of an environment, lists split, with some of them changed."""
    given: dict[str, object] = {**commands()[environment]}
    given["SubnetIds"] = commands()[environment]["SubnetIds"].split(",")
    return given | changes
