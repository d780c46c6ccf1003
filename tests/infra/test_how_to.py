"""The pages on monitoring say what rules, exporter and gunicorn's configuration are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.infra.promtool import RULES, promtool
from tests.infra.recordings import RECORDED, Outage
from tests.infra.shop import GUNICORN

DOCS = RULES.parents[2] / "docs"
MONITOR = (DOCS / "how-to" / "monitor.md").read_text(encoding="utf-8")
OUTAGES = (RULES.parent / "outages.md").read_text(encoding="utf-8")
BEGIN, END = "<!-- outages: begin -->\n", "<!-- outages: end -->\n"


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def table() -> list[str]:
    """Return the table of the alerts that fire in each outage, as Markdown, one line each."""
    rows = [["what happens", "what fires"], ["---"] * 2, *([of.title, told(of)] for of in RECORDED.values())]
    return [f"| {' | '.join(row)} |" for row in rows]


def told(outage: Outage) -> str:
    """The alerts of one outage."""
    then, after = (", ".join(f"`{name}`" for name in sorted(names)) for names in (outage.fires, outage.afterwards))
    return (then or "–") + (f"; afterwards {after}" if after else "")


def test_the_table_is_what_the_tests_expect() -> None:
    """It is generated: paste the lines of ``table()`` when this fails."""
    assert OUTAGES.partition(BEGIN)[2].partition(END)[0].strip() == "\n".join(table())


def test_prometheus_takes_the_configuration_of_the_page(tmp_path: Path) -> None:
    """Beside the rules."""
    (tmp_path / "rules.yml").write_text(RULES.read_text())
    (tmp_path / "prometheus.yml").write_text(blocks(MONITOR, "yaml")[0])
    assert "rules found" in promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_what_alertmanager_keeps_to_itself_are_alerts() -> None:
    """Each is one that fires together with its source."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    [rules] = [yaml.safe_load(block)["inhibit_rules"] for block in blocks(MONITOR, "yaml")[1:]]
    for rule in rules:
        named = [re.findall(r"LangPont\w+", *rule[side]) for side in ("source_matchers", "target_matchers")]
        assert named[0] and named[1] and {*named[0], *named[1]} <= alerts
        assert set(rule["equal"]) <= {"job", "backend"}


def test_the_page_on_metrics_shows_gunicorns_configuration() -> None:
    """The site takes it from its file."""
    [shown] = re.findall(r"^```\{literalinclude\} (.+)$", (DOCS / "metrics.md").read_text("utf-8"), re.MULTILINE)
    assert (DOCS / shown).resolve() == GUNICORN.resolve()


def test_the_dashboard_is_where_the_page_says() -> None:
    """The dashboard is there, and so are all other files that the page names."""
    for path in re.findall(r"`(infra/[^`]+)`", MONITOR):
        assert (DOCS.parent / path).exists(), path
