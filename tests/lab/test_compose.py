"""docker-compose.yml, as far as that can be said without an engine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from devservers.processes import LONG
from tests.support.programs import required

PROJECT = Path(__file__).parent.parent.parent
MONITORING = PROJECT / "infra" / "monitoring"

Services = dict[str, dict[str, Any]]


def compose(*options: str) -> str:
    command = [required("docker-compose"), "--file", str(PROJECT / "docker-compose.yml"), "--profile", "monitoring"]
    command += ["config", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def services() -> Services:
    found: Services = json.loads(compose("--format", "json"))["services"]
    return found


def test_the_file_is_valid() -> None:
    """docker-compose itself says so."""
    compose("--quiet")


def test_ports_are_open_to_this_host_only(services: Services) -> None:
    """A demo with known passwords must not be reachable from elsewhere."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_images_are_pinned_and_every_service_is_checked(services: Services) -> None:
    """Tomorrow's ``up`` starts what today's did, in an order that works."""
    base = re.search(r"^FROM (\S+)", (PROJECT / "lab/Dockerfile").read_text(), re.M)
    assert base
    for image in [base[1], *(service["image"] for service in services.values() if "image" in service)]:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+(\.\d+)?(-[\w-]+)?", image), image
    assert all("healthcheck" in service for service in services.values())


def test_the_application_accepts_its_configuration(services: Services, tmp_path: Path) -> None:
    """The variables of the app's service are settings that exist and go together."""
    environment = os.environ | services["app"]["environment"] | {"FLASK_SECRET_KEY": "key"}
    environment["FLASK_LANGPONT_SESSION_JOURNAL"] = str(tmp_path / "journal.sqlite3")
    command = [sys.executable, "-m", "flask", "--app", "lab.app", "routes"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, cwd=PROJECT, env=environment)
    assert done.returncode == 0, done.stderr
    assert "/translate" in done.stdout


def test_what_the_image_is_built_from_exists() -> None:
    """Every file that the Dockerfile copies, and no other is sent to the engine."""
    copies = re.findall(r"^COPY (.+) \S+$", (PROJECT / "lab/Dockerfile").read_text(), re.M)
    names = {name for line in copies for name in line.split()}
    assert {name for name in names if not (PROJECT / name).exists()} == set()
    kept = (PROJECT / "lab/Dockerfile.dockerignore").read_text().splitlines()
    assert names == {line[1:] for line in kept if line.startswith("!")}


def test_prometheus_and_grafana_are_there_when_they_are_asked_for(services: Services) -> None:
    """Each finds the other and the application; what they read exists, and is not written."""
    assert {name for name, service in services.items() if service.get("profiles")} == {"prometheus", "grafana"}
    assert all(services[name]["profiles"] == ["monitoring"] for name in ("prometheus", "grafana"))
    [scraped] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": [f"app:{services['app']['ports'][0]['target']}"]}]
    assert scraped["metrics_path"] == services["app"]["environment"]["FLASK_LANGPONT_SESSION_METRICS_URL"]
    provisioning = MONITORING / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{services['prometheus']['ports'][0]['target']}"
    [provider] = yaml.safe_load((provisioning / "dashboards/langpont.yml").read_text())["providers"]
    mounts = {mount["target"]: mount for name in ("prometheus", "grafana") for mount in services[name]["volumes"]}
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (Path(mounts[provider["options"]["path"]]["source"]) / home.name).exists()
    for mount in mounts.values():
        assert mount["type"] == "volume" or (Path(mount["source"]).exists() and mount["read_only"])
