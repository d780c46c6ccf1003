"""``make diagrams``: the Mermaid diagrams of docs/ as pictures, for the site (elsewhere Markdown's hosts draw them).

The pictures are kept, because drawing them takes a minute; their names follow from the diagrams.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = DOCS / "images" / "diagrams"
THEMES = {"light": "default", "dark": "dark"}
"""Which page the picture is for, and Mermaid's name of what it looks like then."""

_DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def picture(diagram: str, page: str) -> Path:
    """Return the path of a diagram's picture. :param page: a key of :data:`THEMES`."""
    return PICTURES / f"{hashlib.sha256(diagram.strip().encode()).hexdigest()[:12]}-{page}.svg"


def diagrams() -> Iterator[str]:
    """Yield all diagrams of docs/."""
    for path in sorted(DOCS.rglob("*.md")):
        yield from _DIAGRAM.findall(path.read_text(encoding="utf-8"))


def main() -> None:
    """Draw the diagrams that have no picture, and delete pictures that have no diagram."""
    import mermaidx

    PICTURES.mkdir(exist_ok=True)
    wanted = {picture(diagram, page): (diagram, theme) for diagram in diagrams() for page, theme in THEMES.items()}
    for path in set(PICTURES.iterdir()) - set(wanted):
        path.unlink()
    for path, (diagram, theme) in wanted.items():
        if not path.exists():
            path.write_text(mermaidx.render(diagram, theme=theme).svg(), encoding="utf-8")
            print(path.relative_to(DOCS))


if __name__ == "__main__":
    main()
