"""The manifests for Kubernetes: its own schemas take them, and what they name is there. No cluster runs here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flask_langpont_session.ops.cli.commands import langpont
from tests.infra.promtool import promtool
from tests.infra.shop import gunicorn_settings, pages, prepared, run
from tests.infra.template import INFRA

MANIFESTS = INFRA / "kubernetes"
PAGE = INFRA.parent / "docs" / "how-to" / "kubernetes.md"
OLDEST, NEWEST = "1.29", "1.37"
"""ReadWriteOncePod is for everybody since the first; the second is the newest that is known here."""


def objects() -> list[dict[str, Any]]:
    """All of them."""
    return [one for file in sorted(MANIFESTS.iterdir()) for one in yaml.safe_load_all(file.read_text()) if one]


def one(kind: str, name: str = "shop") -> dict[str, Any]:
    """The object of that kind and name."""
    [found] = [of for of in objects() if (of["kind"], of["metadata"]["name"]) == (kind, name)]
    return found


def pods() -> Iterator[dict[str, Any]]:
    """The specifications of all pods."""
    yield one("StatefulSet")["spec"]["template"]["spec"]
    yield one("Job", "shop-init-db")["spec"]["template"]["spec"]
    yield one("CronJob", "shop-purge")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def container() -> dict[str, Any]:
    """Return the container of the application."""
    [found] = next(pods())["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_them(version: str) -> None:
    """Every field is known, and of its type."""
    for of in objects():
        assert kubernetes_validate.validate(of, version, strict=True) == version


def test_a_slip_of_the_pen_is_seen() -> None:
    """A slip is seen, so silence means something."""
    wrong = one("StatefulSet")
    wrong["spec"]["podManagmentPolicy"] = wrong["spec"].pop("podManagementPolicy")
    with pytest.raises(kubernetes_validate.ValidationError, match="podManagmentPolicy"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_names_lead_to_each_other() -> None:
    """Selectors to labels, ports to ports, mounts to volumes, pods to configuration."""
    stateful, labels = one("StatefulSet")["spec"], one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    for selector in (
        stateful["selector"]["matchLabels"],
        one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one("Service")["spec"]["selector"],
        one("Service", stateful["serviceName"])["spec"]["selector"],
        *(
            spread["labelSelector"]["matchLabels"]
            for spread in stateful["template"]["spec"]["topologySpreadConstraints"]
        ),
    ):
        assert selector == labels
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    for name in ("shop", stateful["serviceName"]):
        assert {port["targetPort"] for port in one("Service", name)["spec"]["ports"]} <= set(ports)
    assert one("Service", stateful["serviceName"])["spec"]["clusterIP"] == "None"
    volumes = [volume["name"] for volume in stateful["template"]["spec"]["volumes"]]
    claims = [claim["metadata"]["name"] for claim in stateful["volumeClaimTemplates"]]
    assert sorted(mount["name"] for mount in container()["volumeMounts"]) == sorted(volumes + claims)
    for pod in pods():
        [part] = pod["containers"]
        assert part["envFrom"] == [{"configMapRef": {"name": "shop"}}, {"secretRef": {"name": "shop"}}]
        assert part["image"] == container()["image"]


def test_the_probes_ask_what_is_there(tmp_path: Path) -> None:
    """Each for what it is meant; with time for the first look, which may take a second."""
    there = pages(tmp_path, one("ConfigMap")["data"]["FLASK_LANGPONT_SESSION_METRICS_URL"])
    ports = {port["name"] for port in container()["ports"]}
    for probe, path in (("startup", "live"), ("liveness", "live"), ("readiness", "ready")):
        asked = container()[f"{probe}Probe"]
        assert asked["httpGet"] == {"path": f"/healthz/{path}", "port": "http"}
        assert asked["httpGet"]["path"] in there and asked["httpGet"]["port"] in ports
        assert asked["timeoutSeconds"] > 1
    assert "/metrics" in there


def test_the_application_starts_with_this_configuration(tmp_path: Path) -> None:
    """gunicorn loads it; the journal is on the volume that stays, the figures are on the one in memory."""
    variables = prepared(tmp_path) | one("ConfigMap")["data"] | {of["name"]: of["value"] for of in container()["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    journal, figures = "FLASK_LANGPONT_SESSION_JOURNAL", "PROMETHEUS_MULTIPROC_DIR"
    assert Path(variables[journal]).parent == Path(mounts["journal"])
    assert Path(variables[figures]).is_relative_to(mounts["figures"])
    variables |= {journal: str(tmp_path / "journal"), figures: str(tmp_path / "figures")}
    command = container()["command"]
    run(tmp_path, [command[0], "--check-config", *command[1:]], variables)
    assert f":{container()['ports'][0]['containerPort']}" in command[command.index("--bind") + 1]


def test_the_commands_of_the_jobs_work_without_a_journal(tmp_path: Path) -> None:
    """The commands work in the order of the page; their pods have no volume, and could not write one."""
    variables = prepared(tmp_path) | one("ConfigMap")["data"]
    _, init_db, purge = pods()
    assert "volumes" not in init_db and "volumes" not in purge
    run(tmp_path, init_db["containers"][0]["command"], variables)
    assert run(tmp_path, purge["containers"][0]["command"], variables) == "0 rows deleted.\n"
    assert not Path(variables["FLASK_LANGPONT_SESSION_JOURNAL"]).exists()


def test_pods_have_the_time_that_they_take_to_end() -> None:
    """The pause before, gunicorn's patience, and what threads publish after it."""
    pause, patience = container()["lifecycle"]["preStop"]["exec"]["command"], gunicorn_settings()["graceful_timeout"]
    assert pause[0] == "sleep" and isinstance(patience, int)
    assert next(pods())["terminationGracePeriodSeconds"] >= int(pause[1]) + patience + 10


def test_pods_may_do_little() -> None:
    """No root, no rights, nothing to be written but the volumes; the same user for journal and commands."""
    for pod in pods():
        [part] = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        assert pod["securityContext"]["runAsUser"] == next(pods())["securityContext"]["fsGroup"]
        assert part["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_page_names_what_is_there(tmp_path: Path) -> None:
    """Files, the secret, and the Service that Prometheus asks."""
    text = PAGE.read_text(encoding="utf-8")
    files = set(re.findall(r"infra/kubernetes/(\S+\.yaml)", text))
    assert files == {path.name for path in MANIFESTS.iterdir()}
    secret = set(re.findall(r"--from-literal=(\w+)=", text))
    assert secret == set(prepared(tmp_path))
    assert set(re.findall(r"langpont ([\w-]+)", text)) <= set(langpont.commands)
    [block] = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    [scraped] = yaml.safe_load(block)["scrape_configs"]
    [of] = scraped["dns_sd_configs"]
    service = one("Service", of["names"][0].partition(".")[0])
    assert of["port"] == service["spec"]["ports"][0]["port"] == container()["ports"][0]["containerPort"]
    assert scraped["metrics_path"] == one("ConfigMap")["data"]["FLASK_LANGPONT_SESSION_METRICS_URL"]
    (tmp_path / "prometheus.yml").write_text(block)
    promtool("check", "config", str(tmp_path / "prometheus.yml"))
