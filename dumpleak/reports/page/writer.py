"""Puts a page together: template, style, script, chart library and data in one file.

The charts are drawn by plotly.js, which ships in the Python package plotly (MIT): it has an icicle (Bokeh
and Vega-Lite have none), bars and lines, fetches nothing, and needs no `eval` for these. Its 4.8 MB are
embedded compressed (2.0 MB) and unpacked by the browser after the first view stands, as are stacks and
other details, so that the page is small and opens at once. The table is our own script.

A content security policy in the page allows these two scripts by their hashes and nothing else: no other
script runs, whatever a name in a dump says, and nothing is fetched.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from functools import lru_cache
from importlib import resources
from typing import IO, TYPE_CHECKING, Any

from dumpleak import __version__
from dumpleak.model.optional_libraries import missing_extra
from dumpleak.reports.binary import NotForTerminalError
from dumpleak.reports.document import Document
from dumpleak.reports.page.data import Page, page_of

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = resources.files("dumpleak.reports.page") / "html"

SCRIPTS = ("base.js", "grids.js", "flame.js", "page.js")  # parts of one script, in order


def write_page(document: Document, stream: IO[str]) -> None:
    """Writes one HTML file that needs nothing else.

    Raises:
        NotForTerminalError: a terminal would show it.
        MissingExtraError: as `render`.
    """
    if stream.isatty():
        raise NotForTerminalError("a page is not for a terminal: write it with -o report.html")
    stream.write(render(page_of(document)))


def render(page: Page) -> str:
    """The page as HTML.

    Raises:
        MissingExtraError: Jinja2 or plotly is not installed.
    """
    script, style = _script(), _text("page.css")
    charts = _plotly()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            version=__version__,
            style=_safe(style, "</style"),
            script=_safe(script, "</script"),
            charts=_packed_charts(),
            policy=_policy(script, charts),
            data=_island(page.first_data()),
            more=_packed(json.dumps(page.more_data(), separators=(",", ":"))),
        )
    )


def _island(data: dict[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _safe(text: str, end: str) -> str:
    """Our own text; a slip that would end its element is an error here and not in the browser."""
    if end in text.lower():
        raise ValueError(f"the text contains {end}")
    return text


@lru_cache(maxsize=1)
def _environment() -> Environment:
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise missing_extra("pages", "Jinja2", "html") from error
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_text),
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _script() -> str:
    """Our script, in one scope."""
    parts = "".join(_text(name) for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise missing_extra("pages", "plotly", "html") from error
    return str(get_plotlyjs())


@lru_cache(maxsize=1)
def _packed_charts() -> str:
    return _packed(_plotly())


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def _policy(*scripts: str) -> str:
    """What the page may do: run exactly these scripts, style itself, show pictures it holds."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
