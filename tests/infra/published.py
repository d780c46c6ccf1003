"""Figures that were published to CloudWatch, kept in files: each has one recording of ``tests.infra.record``.

A file has the seconds at which something was published, and per metric one text: what was published each time. ``-`` is
nothing; ``0x8`` is 0, eight times; ``1.2:3,5:1`` are the values 1.2, three times, and 5, once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from flask_langpont_session.ops.exporters import catalogue
from tests.infra.alarm_states import Key, Sample

FOLDER = Path(__file__).parent / "published"
NOTHING = "-"


class Publication(NamedTuple):
    """The data that one process published at a time.

    :param at: seconds from the beginning.
    :param data: ``MetricData`` of PutMetricData.
    """

    at: float
    data: Sequence[Mapping[str, Any]]


class Recording(NamedTuple):
    """One recording.

    :param title: what happened.
    :param command: records it again.
    :param minutes: that it lasted.
    :param publications: in order.
    """

    title: str
    command: str
    minutes: int
    publications: Sequence[Publication]


def store(kind: str, recording: Recording) -> Path:
    """Write a recording to its file."""
    series: dict[str, list[str]] = {}
    for number, publication in enumerate(recording.publications):
        for datum in filter(_is_kept, publication.data):
            row = series.setdefault(_name(datum), [NOTHING] * len(recording.publications))
            row[number] = _text(datum) if row[number] == NOTHING else f"{row[number]},{_text(datum)}"
    file = FOLDER / f"{kind.replace(' ', '-')}.json"
    file.parent.mkdir(exist_ok=True)
    described = {
        "title": recording.title,
        "command": recording.command,
        "minutes": recording.minutes,
        "at": " ".join(f"{publication.at:g}" for publication in recording.publications),
        "published": {name: _joined(row) for name, row in sorted(series.items())},
    }
    file.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return file


def _is_kept(datum: Mapping[str, Any]) -> bool:
    """Return whether alarms can read a datum: by a third dimension, the stores alone. How busy the recording machine
    was is left out."""
    dimensions = {pair["Name"] for pair in datum["Dimensions"]}
    return dimensions <= {*catalogue.DIMENSIONS, "Store"} and datum["MetricName"] != catalogue.PROCESS_LAG.name


def _name(datum: Mapping[str, Any]) -> str:
    third = [f" {d['Name']}={d['Value']}" for d in datum["Dimensions"] if d["Name"] not in catalogue.DIMENSIONS]
    return "".join([datum["MetricName"], *third])


def _text(datum: Mapping[str, Any]) -> str:
    if "Value" in datum:
        return f"{datum['Value']:g}"
    pairs = zip(datum["Values"], datum["Counts"], strict=True)
    return ",".join(f"{value:g}:{count:g}" for value, count in pairs)


def _joined(row: Sequence[str]) -> str:
    runs = ((text, len([*same])) for text, same in groupby(row))
    return " ".join(text if number == 1 else f"{text}x{number}" for text, number in runs)


@cache
def _stored(kind: str) -> Any:
    return json.loads((FOLDER / f"{kind.replace(' ', '-')}.json").read_text(encoding="utf-8"))


def kinds() -> list[str]:
    """The recordings that there are."""
    return sorted(file.stem.replace("-", " ") for file in FOLDER.glob("*.json"))


def minutes(kind: str) -> int:
    """Return the length of a recording, in minutes."""
    found = _stored(kind)["minutes"]
    assert isinstance(found, int)
    return found


def title(kind: str) -> str:
    """Return what happened in a recording, in words."""
    return str(_stored(kind)["title"])


def figures(kind: str, dimensions: Mapping[str, str]) -> dict[Key, list[Sample]]:
    """A recording as CloudWatch has it.

    :param dimensions: under which the application publishes everything.
    """
    stored = _stored(kind)
    times = [float(at) for at in stored["at"].split()]
    return {
        _key(name, dimensions): [
            sample for at, text in zip(times, _split(row), strict=True) for sample in _samples(at, text)
        ]
        for name, row in stored["published"].items()
    }


def _key(name: str, dimensions: Mapping[str, str]) -> Key:
    metric, _, third = name.partition(" ")
    pairs = [*dimensions.items(), *([tuple(third.split("=", 1))] if third else [])]
    return Key(catalogue.NAMESPACE, metric, frozenset(pairs))  # type: ignore[arg-type]


def _split(row: str) -> Iterator[str]:
    for text in row.split(" "):
        found = re.fullmatch(r"(.+?)x(\d+)", text)
        yield from [found[1]] * int(found[2]) if found else [text]


def _samples(at: float, text: str) -> Iterable[Sample]:
    if text == NOTHING:
        return []
    pairs = (one.partition(":") for one in text.split(","))
    return [Sample(at, float(value), float(count or 1)) for value, _, count in pairs]
