"""How ``make docs`` makes a site of these pages."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DOCS = Path(__file__).parent
ROOT, PICTURES = DOCS.parent, DOCS / "images"
sys.path.insert(0, str(ROOT))

from tools import diagrams, tables  # noqa: E402

project = "flask-langpont-session"
html_title = project
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click"]
exclude_patterns = ["images"]
nitpicky = True  # a link to nothing is a warning, and a warning fails
# SansIOResponse is Werkzeug's, which names it so in its types alone.
_PACKAGES = "blinker|click|collections|contextlib|datetime|flask|logging|sqlalchemy|werkzeug"
_OTHERS = rf"({_PACKAGES})\b.*|.*\bView|SansIOResponse"
nitpick_ignore_regex = [("py:.*", _OTHERS)]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["copy.js"]
pygments_style = "tango"
pygments_dark_style = "github-dark"


class Mermaid(SphinxDirective):
    """A diagram as two pictures, one for light pages and one for dark ones."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        source = "\n".join(self.content)
        box = nodes.container(classes=["diagram"])
        for page in diagrams.THEMES:
            path = diagrams.picture(source, page)
            if not path.exists():
                raise self.error("there is no picture of this diagram; run `make diagrams`")
            uri = "/" + path.relative_to(DOCS).as_posix()
            width = float(re.findall(r'viewBox="\S+ \S+ (\S+) ', path.read_text(encoding="utf-8"))[0])
            box += nodes.image(uri=uri, alt=source, classes=[f"only-{page}"], width=f"{width * 0.75:.0f}px")
        return [box]


class Table(SphinxDirective):
    """A table that a function of ``tools.tables`` makes from the code."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(getattr(tables, self.arguments[0])())


def keep_pictures_in_their_place(app: Sphinx, problem: Exception | None) -> None:
    """An index shows the README with the addresses that they have in docs/; pages of the site have copies elsewhere."""
    shutil.copytree(PICTURES, app.outdir / "images", dirs_exist_ok=True, ignore=shutil.ignore_patterns("diagrams"))


def language_of_the_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """A page in another language says so in its first lines: ``lang: ja``."""
    context["language"] = (context.get("meta") or {}).get("lang", app.config.language)


def what_stays_in_the_sources(app: Sphinx, page: str, source: list[str]) -> None:
    """A link to a page or a folder outside of docs/ becomes its name. (Other files are offered for download.)"""

    def told(link: re.Match[str]) -> str:
        path = ((DOCS / page).parent / link["path"]).resolve()
        stays = (path.is_dir() or path.suffix == ".md") and path.exists() and not path.is_relative_to(DOCS)
        return f"{link['text']} (`{path.relative_to(ROOT)}` in the sources)" if stays else link[0]

    source[0] = re.sub(r"\[(?P<text>[^\]]+)\]\((?P<path>\.\./[^)#\s]+)(?:#[^)]*)?\)", told, source[0])


def only_what_applications_use(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Sessions and their views are made by the package, so their parameters are left out."""
    if name.rpartition(".")[2] in ("Session", "CategoryView"):
        del lines[next((number for number, line in enumerate(lines) if line.startswith(":param")), len(lines)) :]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_directive("mermaid", Mermaid)
    app.add_directive("made-table", Table)
    app.connect("build-finished", keep_pictures_in_their_place)
    app.connect("source-read", what_stays_in_the_sources)
    app.connect("autodoc-process-docstring", only_what_applications_use)
    app.connect("html-page-context", language_of_the_page)
