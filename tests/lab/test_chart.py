"""The picture of the benchmarks shows the figures, to those that see it and to those that do not."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks.chart import PICTURE, svg
from benchmarks.outages import chart
from benchmarks.outages.chart import CHARTS, Chart
from benchmarks.page import DOCS
from benchmarks.scenarios import SCENARIOS

NAMESPACE = "{http://www.w3.org/2000/svg}"
FIGURES = {
    "scenarios": {
        "read-one": {"bare": {"whole": 0.1}, "ours": {"whole": 0.25}, "cookie": {"whole": 0.5}},
        "read-one-50k": {"ours": {"whole": 2.0}, "cookie": {"whole": None}},
    }
}


def test_a_bar_is_as_long_as_its_ratio() -> None:
    """One for each that has a ratio, with the figure beside it; the line is where Flask-Session is."""
    picture = ElementTree.fromstring(svg(FIGURES))
    bars = [(bar.get("class"), float(bar.get("width", 0))) for bar in picture.iter(f"{NAMESPACE}rect") if bar.get("y")]
    [(_, quarter), (_, half), (_, two)] = drawn = [bar for bar in bars if bar[1] != 12]  # those are of the legend
    assert [kind for kind, _ in drawn] == ["ours", "cookie", "ours"]
    assert abs(half - 2 * quarter) < 0.2
    assert abs(two - 8 * quarter) < 0.8
    [line] = picture.iter(f"{NAMESPACE}line")
    left = next(float(bar.get("x", 0)) for bar in picture.iter(f"{NAMESPACE}rect") if bar.get("width") == f"{two:.1f}")
    assert abs(float(line.get("x1", 0)) - left - 4 * quarter) < 0.4
    values = [text.text for text in picture.iter(f"{NAMESPACE}text") if text.get("class") == "value"]
    assert values == ["0.25", "0.50", "2.00"]


def test_the_figures_are_there_as_text() -> None:
    """For programs that read pages aloud."""
    [words] = ElementTree.fromstring(svg(FIGURES)).iter(f"{NAMESPACE}desc")
    assert words.text == (
        "Flask-Session is 1.00. read one auth key: flask-langpont-session 0.25, Flask's cookie session 0.50. "
        "50 KB: read one auth key: flask-langpont-session 2.00."
    )


def test_the_picture_of_the_readme_needs_nothing_beside_it() -> None:
    """It has all scenarios, and looks well on light and dark pages."""
    text = PICTURE.read_text(encoding="utf-8")
    [words] = ElementTree.fromstring(text).iter(f"{NAMESPACE}desc")
    assert all(f"{scenario.title}: " in (words.text or "") for scenario in SCENARIOS)
    assert "prefers-color-scheme: dark" in text
    assert not [part for part in ("href", "url(", "@import", "<script") if part in text]
    assert text.count("http") == 1


TABLE = """
<!-- outage-report -->

| outage | **flask_langpont_session** | Flask-Session | Django cached_db |
| --- | --- | --- | --- |
| gone | 5xx: 0 of 10<br>slowest: 0.02 s<br>logged out: 0<br>lost writes: account 0 of 4, drafts **1** of 4<br>resurrected: 0 of 3 | 5xx: **4** of 10<br>slowest: 2.00 s<br>logged out: **2**<br>lost writes: account 0 of 0, drafts 0 of 0<br>resurrected: **1** of 2<br>sign-out failed, still signed in: **3** | 5xx: **2** of 10<br>slowest: 1.00 s<br>logged out: 0<br>lost writes: account **1** of 2, drafts 0 of 2<br>resurrected: 0 of 0 |

<!-- end of outage-report -->
"""  # noqa: E501


FIGURES_OF = {
    "errors": ["0", "40", "20"],
    "slowest": ["0.02", "2.00", "1.00"],
    "lost": ["12", "0", "25"],
    "users": ["0", "6", "0"],
}
"""Of the table above, in the order of its systems."""


@pytest.mark.parametrize("drawn", CHARTS, ids=lambda drawn: drawn.name)
def test_an_outages_bars_are_as_long_as_the_tables_figures(drawn: Chart) -> None:
    """Beside each stands its figure."""
    figures = FIGURES_OF[drawn.name]
    picture = ElementTree.fromstring(chart.svg(drawn, TABLE))
    bars = [float(bar.get("width", 0)) for bar in picture.iter(f"{NAMESPACE}rect") if bar.get("height") == "13"]
    longest = max(bars)
    most = max(map(float, figures))
    assert [bar / longest for bar in bars] == pytest.approx([float(figure) / most for figure in figures], abs=0.05)
    texts = [text.text for text in picture.iter(f"{NAMESPACE}text")]
    assert texts[-4:] == ["gone", *figures]
    [words] = picture.iter(f"{NAMESPACE}desc")
    assert f"Flask-Session {figures[1]}{drawn.unit}" in (words.text or "")


def test_the_pictures_of_outages_are_those_of_the_table() -> None:
    """If not: ``python -m benchmarks.outages.chart``."""
    drawn = chart.pictures((DOCS / "outages.md").read_text(encoding="utf-8"))
    assert len(drawn) == 4
    for name, picture in drawn.items():
        assert (DOCS / "images" / name).read_text(encoding="utf-8") == picture, name
