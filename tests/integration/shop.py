"""An application for the ``flask`` command, and what that answers about it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from click.testing import Result
from flask import Flask

from .flask_command import run_flask

SHOP = """
from flask import Flask
from flask_langpont_session import LangPontSession

app = Flask("shop", instance_path={instance!r})
app.config.update({config!r})
if {with_extension}:
    LangPontSession(app)
"""


def run(app: Flask, *arguments: str) -> Result:
    """Run ``flask langpont ARGUMENTS`` in this process, and return the result."""
    return app.test_cli_runner().invoke(args=["langpont", *arguments])


def write_shop(folder: Path, with_extension: bool = True, **config: Any) -> None:
    """An application; `config` without the prefix."""
    settings = {f"LANGPONT_SESSION_{key}": value for key, value in config.items()} | {"SECRET_KEY": "a key for tests"}
    shop = SHOP.format(instance=str(folder), config=settings, with_extension=with_extension)
    (folder / "shop.py").write_text(shop)


def flask(
    folder: Path, *arguments: str, with_extension: bool = True, **config: Any
) -> subprocess.CompletedProcess[str]:
    """Return the answer of ``flask ARGUMENTS`` in a folder with such an application."""
    write_shop(folder, with_extension, **config)
    return run_flask(folder, ["--app", "shop", *arguments], 60)
