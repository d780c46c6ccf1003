"""The rules for Prometheus: what they name exists, what they say helps, and when they fire over figures made up."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.promql import VALUES, exported, metrics_of, mistakes, recorded_of
from tests.infra.promtool import EVER_FIRED, EVERY, FIRING, JOB, RULES, TARGET, Evaluation, evaluate, firing, promtool
from tests.infra.recordings import RECORDED
from tools import tables

DOCS = RULES.parents[2] / "docs"
SITE = "https://flask-langpont-session.readthedocs.io/en/latest/"
GROUPS = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
ALL: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}
RECORDS = {rule["record"]: rule for rule in ALL if "record" in rule}


# -- what they name, and what they say ---------------------------------------------------------------------------------


def test_prometheus_takes_them() -> None:
    """Syntax and templates."""
    assert f"{len(ALL)} rules found" in promtool("check", "rules", str(RULES))


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.get("alert") or rule["record"])
def test_what_a_rule_asks_for_is_exported(rule: dict[str, Any]) -> None:
    """The exporter has it, or a rule before."""
    assert list(mistakes(rule["expr"], exported())) == []
    assert recorded_of(rule["expr"]) <= set(RECORDS)
    assert metrics_of(rule["expr"]) | recorded_of(rule["expr"])


def test_a_mistake_is_seen() -> None:
    """Each kind of mistake is found."""
    for expression in (
        "langpont_session_levels",
        'langpont_session_store_up{store="primary"}',
        'langpont_session_store_up{backend="primry"}',
        "rate(langpont_session_store_up[5m])",
        "langpont_session_server_changes_total > 0",
        "sum by (hots) (langpont_session_store_up)",
    ):
        assert len(list(mistakes(expression, exported()))) == 1, expression
    assert set(VALUES) >= {label for metric in exported().values() for label in metric.labels} - {"category"}


def test_every_recorded_series_is_of_use() -> None:
    """Each series is used by an alert or by the next one."""
    assert {name for rule in ALL for name in recorded_of(rule["expr"])} == set(RECORDS)


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as the site makes them."""
    heads = re.findall(r"^#+ (.+)$", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_means_and_where_to_read_on(name: str) -> None:
    """Each alert says what is wrong and where to read on: it is all that the person on call has at first."""
    rule = ALERTS[name]
    assert re.fullmatch(r"LangPont[A-Z]\w+", name)
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in ("info", "warning", "critical", "emergency")
    said = rule["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    title = re.sub(r"{{ range.*{{ end }}", "", said["summary"])  # without the causes
    assert title.startswith("{{ $labels.job }}: ") and len(title) < 100
    assert said["description"].endswith(".") and len(said["description"]) > 50
    page, _, anchor = said["runbook_url"].removeprefix(SITE).partition("/#")
    assert page == "operations" and anchor in anchors(page)


def test_the_page_on_operations_has_every_alert() -> None:
    """The table is made from the rules; what has a section of its own is an alert."""
    assert set(re.findall(r"`(LangPont\w+)`", tables.prometheus_alerts())) == set(ALERTS)
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    named = {one or two for one, two in re.findall(r"`(LangPont[A-Z]\w+)`|^### (LangPont\w+)", text, re.MULTILINE)}
    assert named and named <= set(ALERTS)


def test_every_alert_fires_in_a_test() -> None:
    """Each alert fires in a recorded outage, or in one of those below."""
    recorded = {name for outage in RECORDED.values() for name in outage.fires | outage.afterwards}
    assert recorded | {name for case in CASES.values() for _, names in case.fires for name in names} == set(ALERTS)


# -- when they fire ----------------------------------------------------------------------------------------------------


class Case:
    """Figures of one host, and what is to fire.

    :param series: without ``langpont_session_`` and the target's labels → values, look by look.
    :param fires: the number of a look → the alerts that fire then.
    :param every: seconds between two looks.
    """

    def __init__(
        self, series: Mapping[str, Sequence[float | None]], *fires: tuple[int, Sequence[str]], every: int = EVERY
    ) -> None:
        self.series = {_named(name): values for name, values in series.items()}
        self.fires, self.every = fires, every


def _named(name: str) -> str:
    if name == "up":
        return f"up{{{TARGET}}}"
    metric, _, labels = name.partition("{")
    given = f"{labels.removesuffix('}')}, " if labels else ""
    return f"langpont_session_{metric}{{{given}{JOB if 'instance=' in given else TARGET}}}"


def steps(looks: int, each: Callable[[int], float]) -> list[float | None]:
    """A counter that grows by something at each look."""
    total, values = 0.0, []
    for look in range(looks):
        total += each(look)
        values.append(total)
    return [*values]


def calls(looks: int, backend: str, quick: Callable[[int], float], slow: Callable[[int], float], took: float) -> Any:
    """Calls to a store at each look: some that took a moment, and some that took so many seconds."""
    of = f'operation="read", backend="{backend}"'
    total, below = steps(looks, lambda look: quick(look) + slow(look)), steps(looks, quick)
    return {
        f"operation_duration_seconds_count{{{of}}}": total,
        **{
            f'operation_duration_seconds_bucket{{{of}, le="{bound}"}}': below if bound < took else total
            for bound in (0.05, 0.1)
        },
    }


def sign_ins(looks: int, fine: Callable[[int], float], refused: Callable[[int], float]) -> Any:
    """Sign-ins at each look: some that succeeded, and some that were refused."""
    return {
        'operations_total{operation="regenerate", backend="database", outcome="ok"}': steps(looks, fine),
        "grants_refused_total": steps(looks, refused),
    }


LONG, A_MINUTE = 120, 4
AN_HOUR = 60
"""Looks, one a minute."""
OTHER_HOST = 'degradation_level{instance="host-2:8000"}'
UP = {'store_up{backend="primary", way="read"}': [1.0] * LONG, "degradation_level": [0.0] * LONG}

CASES: dict[str, Case] = {
    # -- whether a site reports
    "no application yet": Case({}, (LONG, [])),
    "a site that ends": Case(
        {"degradation_level": [0.0] * 20 + [None] * LONG},
        (19, []), (20 + 3 * A_MINUTE, []), (20 + 6 * A_MINUTE, ["LangPontHeartbeat"]), (LONG, ["LangPontHeartbeat"]),
    ),
    "a deployment of four minutes": Case(
        {"degradation_level": [0.0] * 20 + [None] * 4 * A_MINUTE + [0.0] * 100}, (40, []), (130, [])
    ),
    # -- latency
    "slow for a quarter of an hour": Case(
        calls(LONG, "primary", lambda look: 100, lambda look: 5 * (look < 60), 0.07),
        (30, []), (60, ["LangPontLatencyWarning"]), (60 + 6 * A_MINUTE, []),
    ),
    "very slow": Case(
        calls(LONG, "database", lambda look: 20, lambda look: 2, 0.15),
        (LONG - 1, ["LangPontLatencyWarning", "LangPontLatencyCritical"]),
    ),
    "a slow call in two hundred": Case(
        calls(LONG, "primary", lambda look: 199, lambda look: 1, 0.15), (LONG - 1, [])
    ),
    "a hang that 32 threads paid for": Case(
        calls(LONG, "primary", lambda look: 10 * (look != 30), lambda look: 32 * (look == 30), 0.2),
        (LONG - 1, []),
    ),
    "low traffic, one slow call in five minutes": Case(
        calls(LONG, "primary", lambda look: look % 4 == 0, lambda look: look % 20 == 0, 0.2), (LONG - 1, [])
    ),
    "low traffic, all of it slow": Case(
        calls(LONG, "primary", lambda look: 0, lambda look: look % 2 == 0, 0.07),
        (LONG - 1, ["LangPontLatencyWarning"]),
    ),
    "slow until no user comes any more": Case(
        calls(LONG, "primary", lambda look: 0, lambda look: 10 * (look < 80), 0.07),
        (80, ["LangPontLatencyWarning"]), (80 + 6 * A_MINUTE, []), (LONG - 1, []),
    ),
    # -- errors
    "a network that flaps below what a breaker sees": Case(
        {
            **UP,
            **calls(LONG, "primary", lambda look: 20, lambda look: 0, 0.2),
            'operations_total{operation="read", backend="primary", outcome="unreachable"}': steps(
                LONG, lambda look: 2.0
            ),
        },
        (LONG - 1, ["LangPontErrorRate"]),
    ),
    # -- data
    "stores are used and the journal does not empty": Case(
        {
            'store_up{backend="primary", way="write"}': [0.0] * 10 + [1.0] * 50,
            "degradation_level": [0.0] * 60,  # of what an outage fires nothing here
            "journal_oldest_seconds": [15.0 * look for look in range(40)] + [0.0] * 20,
        },
        (9, ["LangPontRedisRefusesWrites"]), (25, ["LangPontJournalNotEmptying"]), (45, []),
    ),
    "writes are lost": Case(
        {'writes_lost_total{cause="journal failed", category="ui"}': steps(60, lambda look: 3.0 * (look == 10))},
        (12, ["LangPontWritesLost"]), (12 + 6 * A_MINUTE, []),
    ),
    "a database that went back": Case(
        {"database_lost_commits_total": steps(60, lambda look: 3.0 * (look == 10))},
        (12, ["LangPontDatabaseLostCommits"]), (12 + 6 * A_MINUTE, []),
    ),
    "changes that waited for too long": Case(
        {'merge_dropped_total{cause="too old", category="ui"}': steps(60, lambda look: 3.0 * (look == 10))},
        (12, ["LangPontChangesTooOld"]), (12 + 6 * A_MINUTE, []),
    ),
    "changes that another one replaced": Case(
        {'merge_dropped_total{cause="session over", category="ui"}': steps(60, lambda look: 3.0 * (look == 10))},
        (59, []),
    ),
    # -- a host that is gone
    "a host is away, and nothing waits in its journal": Case(
        {
            "up": [1.0] * 20 + [0.0] * 60,
            "journal_waiting": [0.0] * 20 + [None] * 60,
            OTHER_HOST: [0.0] * 80,
        },
        (20 + 4 * A_MINUTE, []), (20 + 6 * A_MINUTE, ["LangPontHostGone"]),
    ),
    "a host is taken away in an outage, and for good": Case(
        {"journal_waiting": [0.0] * 10 + [7.0] * 10 + [None] * 180, OTHER_HOST: [0.0] * 200},
        (20 + 4 * A_MINUTE, []), (20 + 6 * A_MINUTE, ["LangPontJournalStranded"]), (20 + 31 * A_MINUTE, []),
    ),
    "a host is replaced while all is well": Case(
        {"journal_waiting": [0.0] * 20 + [None] * 60, OTHER_HOST: [0.0] * 80}, (79, [])
    ),
    # -- the objective for sign-ins: 999 of 1,000 succeed
    "a sign-in that is refused once": Case(
        {"grants_refused_total": steps(60, lambda look: 1.0 * (look == 10))}, (12, [])
    ),
    "a second in which all sign-ins are refused": Case(
        sign_ins(LONG, lambda look: 100 * (look != 60), lambda look: 7 * (look == 60)), (LONG - 1, [])
    ),
    "every sign-in is refused": Case(
        sign_ins(
            7 * AN_HOUR,
            lambda look: 10 * (not 0 <= look - 6 * AN_HOUR < 5),
            lambda look: 10 * (0 <= look - 6 * AN_HOUR < 5),
        ),
        (6 * AN_HOUR - 1, []), (6 * AN_HOUR + 1, ["LangPontGrantsRefused"]), (6 * AN_HOUR + 11, []),
        (7 * AN_HOUR - 1, []), every=60,
    ),
    "two sign-ins in a hundred are refused": Case(
        sign_ins(2 * AN_HOUR, lambda look: 98, lambda look: 2 * (look >= AN_HOUR)),
        (AN_HOUR + 1, []), (AN_HOUR + 30, ["LangPontGrantsRefusedSlowly"]),
        (2 * AN_HOUR - 1, ["LangPontGrantsRefused"]), every=60,
    ),
    "one sign-in in a hundred is refused": Case(
        sign_ins(4 * AN_HOUR, lambda look: 99, lambda look: look >= AN_HOUR),
        (AN_HOUR + 20, []), (4 * AN_HOUR - 1, ["LangPontGrantsRefusedSlowly"]), every=60,
    ),
    "one sign-in in two hundred is refused": Case(
        sign_ins(AN_HOUR, lambda look: 199, lambda look: 1), (AN_HOUR - 1, []), every=60
    ),
    "a host with another key": Case(
        {
            'cookies_refused_total{why="signature"}': steps(LONG, lambda look: 10.0 * (20 <= look < 60)),
            'operations_total{operation="request", backend="none", outcome="ok"}': steps(LONG, lambda look: 400.0),
        },
        (20, []), (20 + 4 * A_MINUTE, ["LangPontCookiesRefused"]), (60 + 6 * A_MINUTE, []),
    ),
    "a few forged cookies among many requests": Case(
        {
            'cookies_refused_total{why="signature"}': steps(LONG, lambda look: 3.0),
            'cookies_refused_total{why="form"}': steps(LONG, lambda look: 400.0),
            'operations_total{operation="request", backend="none", outcome="ok"}': steps(LONG, lambda look: 400.0),
        },
        (LONG - 1, []),
    ),
    # -- beside the stores
    "no near cache on a busy host": Case(
        {
            **UP,
            'near_cache_connections{backend="primary"}': [8.0] * 20 + [0.0] * 100,
            'operations_total{operation="read", backend="primary", outcome="ok"}': steps(LONG, lambda look: 20.0),
        },
        (19, []), (20 + 11 * A_MINUTE, ["LangPontNearCacheOff"]),
    ),
    "no near cache on an idle host": Case(
        {
            **UP,
            'near_cache_connections{backend="primary"}': [0.0] * LONG,
            'operations_total{operation="read", backend="primary", outcome="ok"}': steps(LONG, lambda look: 1.0),
        },
        (LONG - 1, []),
    ),
    "a worker that computes": Case(
        {"process_lag_seconds": [0.2] * 80 + [0.01] * 80}, (75, ["LangPontProcessLate"]), (150, [])
    ),
    "a worker that was late for a minute": Case(
        {"process_lag_seconds": [0.01] * 40 + [1.5] * A_MINUTE + [0.01] * 60}, (100, [])
    ),
    "SNS refuses": Case(
        {"alerts_failed_total": steps(100, lambda look: 1.0 * (look == 10))},
        (12, ["LangPontAlertsFailed"]), (12 + 11 * A_MINUTE, []),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_figures_that_are_made_up(tmp_path: Path, name: str) -> None:
    """Exactly the expected alerts fire at each moment, and no other one ever."""
    case = CASES[name]
    last = max(look for look, _ in case.fires)
    ever = {alert for _, names in case.fires for alert in names}
    expected = [(look, FIRING, firing(names)) for look, names in case.fires]
    evaluate(tmp_path, Evaluation(name, case.series, [*expected, (last, EVER_FIRED, firing(ever))], every=case.every))


def test_a_loss_of_a_second_wakes_no_person_however_many_hosts_there_are(tmp_path: Path) -> None:
    """Each host notices it at another moment; what counts is how long it lasts."""
    series: dict[str, list[float | None]] = {
        f'langpont_session_degradation_level{{job="shop", instance="host-{host}"}}': [
            2.0 if look == 20 + host % 2 else 0.0 for look in range(60)
        ]
        for host in range(24)
    }
    evaluate(tmp_path, Evaluation("a second", series, [(59, EVER_FIRED, firing([]))]))


def test_sites_and_hosts_are_told_apart(tmp_path: Path) -> None:
    """One of four hosts does without Redis, at one of two sites: the alert says so."""
    series: dict[str, list[float | None]] = {
        f'langpont_session_store_up{{backend="primary", way="read", job="{site}", instance="{host}"}}': [
            0.0 if (site, host) == ("shop", "host-2") else 1.0
        ]
        * 20
        for site in ("shop", "blog")
        for host in ("host-1", "host-2", "host-3", "host-4")
    }
    alert = '{alertname="LangPontRedisDown", backend="primary", job="shop", severity="critical", way="read"}'
    share = 'job_backend_way:langpont_session_store_down:share{job="shop"}'
    labels = 'job_backend_way:langpont_session_store_down:share{backend="primary", job="shop", way="read"}'
    told = f"ALERTS{alert.replace('{', '{alertstate=' + chr(34) + 'firing' + chr(34) + ', ', 1)}"
    expected = [(19, share, {labels: 0.25}), (19, 'ALERTS{alertstate="firing"}', {told: 1.0})]
    evaluate(tmp_path, Evaluation("two sites", series, expected))


STORES = [
    ("LangPontRedisDown", "primary", "read", "refuses the password", "Redis cannot be used"),
    ("LangPontRedisRefusesWrites", "primary", "write", "is a replica", "Redis takes no writes"),
    ("LangPontReplicaDown", "replica", "read", "is a primary itself", "the replica cannot be used"),
    ("LangPontDatabaseDown", "database", "write", "its certificate has expired", "the session database cannot be used"),
]


@pytest.mark.parametrize(("name", "backend", "way", "cause", "begins"), STORES)
def test_an_alert_of_a_store_has_the_cause_in_its_title(
    name: str, backend: str, way: str, cause: str, begins: str, tmp_path: Path
) -> None:
    """The present one, in the words of the log, the pages and the commands; not the one before, nor another store's."""
    of = "langpont_session_store_cause{backend=%r, cause=%r, " + TARGET + "}"
    series: dict[str, Sequence[float | None]] = {
        f'langpont_session_store_up{{backend="{backend}", way="{way}", {TARGET}}}': [0.0] * 20,
        of % (backend, "does not answer"): [1.0] * 18 + [0.0] * 2,
        of % (backend, cause): [0.0] * 18 + [1.0] * 2,
        of % ("journal", "refuses writes"): [1.0] * 20,
    }
    labels = {"job": "shop", "backend": backend, "severity": ALERTS[name]["labels"]["severity"]}
    given = ALERTS[name]["annotations"]
    told = [
        (
            look,
            name,
            labels if name == "LangPontDatabaseDown" else labels | {"way": way},
            given
            | {
                "summary": f"shop: {begins}: {word}",
                "description": re.sub(r"{{.*?}}", "100%", given["description"]),
            },
        )
        for look, word in ((17, "does not answer"), (19, cause))
    ]
    evaluate(tmp_path, Evaluation(name, series, [], told))
