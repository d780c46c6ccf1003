"""The units for systemd: it reads them, and what they start and name is there. No unit runs here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from devservers.processes import LONG
from flask_langpont_session.ops.cli.commands import langpont
from tests.infra.shop import gunicorn_settings, prepared, run
from tests.infra.template import INFRA
from tests.support.programs import required

UNITS = INFRA / "systemd"
DOCS = INFRA.parent / "docs"
SYSTEM = Path("/usr/lib/systemd/system")
SERVICES = ("shop.service", "shop-purge.service")


def settings(unit: str) -> dict[str, str]:
    """The lines of a unit that set something."""
    text = (UNITS / unit).read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def environment() -> dict[str, str]:
    """``/etc/shop/environment`` as the page on deployment has it."""
    return dict(re.findall(r"^(FLASK_\w+)=(.*)$", (DOCS / "how-to" / "deploy.md").read_text(), re.MULTILINE))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with the units and what they start, as far as systemd looks for it."""
    units = tmp_path / "etc/systemd/system"
    shutil.copytree(UNITS, units)
    (tmp_path / "usr/lib/systemd/system").mkdir(parents=True)
    for unit in [*SYSTEM.glob("*.target"), *SYSTEM.glob("*.slice")]:
        shutil.copy(unit, tmp_path / "usr/lib/systemd/system")
    for program in ("srv/shop/venv/bin/gunicorn", "srv/shop/venv/bin/flask", "bin/kill"):
        file = tmp_path / program
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o755)
    return tmp_path


def test_the_service_is_never_given_up() -> None:
    """Five refusals within ten seconds end the tries of systemd for good, unless a unit says otherwise."""
    unit = settings("shop.service")
    assert (unit["Restart"], unit["StartLimitIntervalSec"]) == ("on-failure", "0")
    assert int(unit["RestartSec"]) >= 1, "each try loads the application"


def verify(root: Path) -> str:
    """Return what systemd says of the units."""
    options = ["--man=no", "--generators=no", "--recursive-errors=no", f"--root={root}"]
    command = [
        required("systemd-analyze", "systemd"),
        "verify",
        *options,
        *sorted(path.name for path in UNITS.iterdir()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG).stderr


def test_systemd_understands_all_of_them(root: Path) -> None:
    """No key, value or program that it does not know."""
    assert verify(root) == ""


def test_a_slip_of_the_pen_is_seen(root: Path) -> None:
    """A slip is seen, so silence means something."""
    unit = root / "etc/systemd/system/shop.service"
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHouse=yes"))
    assert "Unknown key 'ProtectHouse'" in verify(root)


@pytest.mark.parametrize(("unit", "most"), [("shop.service", 15), ("shop-purge.service", 36)])
def test_little_is_allowed(unit: str, most: int) -> None:
    """The measure is systemd's own, in tenths: 100 is a service without any limit."""
    command = [required("systemd-analyze", "systemd"), "security", "--offline=true", f"--threshold={most}"]
    done = subprocess.run([*command, str(UNITS / unit)], capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stdout[-500:]


def test_gunicorn_takes_its_configuration(tmp_path: Path) -> None:
    """gunicorn loads the application with the environment of the page on deployment."""
    unit = settings("shop.service")
    variables = environment() | prepared(tmp_path) | dict([unit["Environment"].split("=", 1)])
    assert variables["FLASK_LANGPONT_SESSION_JOURNAL"].startswith(f"/var/lib/{unit['StateDirectory']}/")
    assert variables["PROMETHEUS_MULTIPROC_DIR"].startswith(f"/run/{unit['RuntimeDirectory']}/")
    variables |= {
        "FLASK_LANGPONT_SESSION_JOURNAL": str(tmp_path / "journal.sqlite3"),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "figures"),
    }
    command = unit["ExecStart"].split()
    run(tmp_path, [*command[:1], "--check-config", *command[1:]], variables)
    assert (tmp_path / "figures").is_dir() and (tmp_path / "journal.sqlite3").exists()


def test_the_command_of_the_purge_is_one(tmp_path: Path) -> None:
    """The purge runs once the tables are there."""
    variables = environment() | prepared(tmp_path)
    variables["FLASK_LANGPONT_SESSION_JOURNAL"] = str(tmp_path / "journal.sqlite3")
    command = settings("shop-purge.service")["ExecStart"].split()
    run(tmp_path, [*command[:-1], "init-db"], variables)
    assert run(tmp_path, command, variables) == "0 rows deleted.\n"
    assert not (tmp_path / "journal.sqlite3").exists()


def test_both_services_are_the_same_user_with_the_same_configuration() -> None:
    """Both may open the journal where there is one."""
    same = ("User", "WorkingDirectory", "EnvironmentFile", "StateDirectory", "StateDirectoryMode", "ProtectSystem")
    [one, other] = ([settings(unit)[name] for name in same] for unit in SERVICES)
    assert one == other


def test_workers_have_the_time_that_they_take_to_end() -> None:
    """gunicorn's patience, and what threads publish after it."""
    patience = gunicorn_settings()["graceful_timeout"]
    assert isinstance(patience, int) and int(settings("shop.service")["TimeoutStopSec"]) >= patience + 10


def test_the_page_shows_the_units() -> None:
    """The site takes them from their files."""
    page = (DOCS / "how-to" / "systemd.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```\{literalinclude\} \.\./\.\./infra/systemd/(.+)$", page, re.MULTILINE)
    assert sorted(shown) == sorted(path.name for path in UNITS.iterdir())


def test_the_commands_of_the_page_exist() -> None:
    """Also the line for cron, which does what the unit does."""
    text = (DOCS / "how-to" / "systemd.md").read_text(encoding="utf-8")
    assert set(re.findall(r"langpont ([\w-]+)", text)) <= set(langpont.commands)
    purge = settings("shop-purge.service")["ExecStart"].removeprefix("/srv/shop/")
    [cron] = re.findall(r"^(?:\S+ ){5}(\w+) cd /srv/shop && set -a && \. (\S+) && (.*)$", text, re.MULTILINE)
    assert cron == (settings("shop.service")["User"], settings("shop.service")["EnvironmentFile"], purge)
