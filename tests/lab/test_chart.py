"""The picture of the benchmarks shows the figures, to those that see it and to those that do not."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from benchmarks.chart import PICTURE, svg
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
