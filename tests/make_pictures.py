"""Makes the pictures of README.md with the project's own commands, on the dumps of testdata:

    python tests/make_pictures.py

The terminal's picture is what the command prints; the page's needs Playwright and an installed browser.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "parsers"), str(ROOT), str(ROOT / "tests")]

from browser.page_driver import FLAGS, browser_path, opened  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from dumpleak.cli import main as dumpleak  # noqa: E402

PICTURES = ROOT / ".github" / "pictures"
PAIR = "testdata/10.0.26100.5074-x64/leak-pair-ust"
DIFF = ["diff", f"{PAIR}/before.dmp.gz", f"{PAIR}/after.dmp.gz"]
COLUMNS = 100
# A terminal window whose text is in the reader's own fixed font; rich's template fetches one.
SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: Consolas, Menlo, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
  <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def printed(args: list[str]) -> str:
    """What a command prints on a terminal."""
    os.environ.pop("NO_COLOR", None)
    os.environ.update(COLUMNS=str(COLUMNS), TERM="xterm-256color")
    stream, stdout = Terminal(), sys.stdout
    sys.stdout = stream
    try:
        run(args)
    finally:
        sys.stdout = stdout
    return stream.getvalue()


def run(args: list[str]) -> None:
    try:
        dumpleak(args)
    except SystemExit as stop:
        if stop.code:
            raise


def terminal_picture(args: list[str], path: Path) -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"$ dumpleak {' '.join(args)}\n\n{printed(args)}"))
    console.save_svg(str(path), title="dumpleak", code_format=SVG)


def page_pictures(args: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "page.html"
        run([*args, "--format", "html", "-o", str(page), "-q"])
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        for scheme in ("light", "dark"):
            size = {"width": 1180, "height": 760}
            with opened(browser, page, charts=True, color_scheme=scheme, viewport=size) as watched:
                watched.page.locator("#sites td.name > button").first.click()
                watched.page.locator("#sites .sizes[data-drawn]").wait_for()
                if scheme == "dark":
                    watched.page.locator("#flame").scroll_into_view_if_needed()
                    watched.page.evaluate("document.getElementById('flame').scrollIntoView()")
                else:
                    watched.page.evaluate("scrollTo(0, 0)")
                watched.page.screenshot(path=str(PICTURES / f"page-{scheme}.png"))
        browser.close()


if __name__ == "__main__":
    os.chdir(ROOT)
    PICTURES.mkdir(parents=True, exist_ok=True)
    terminal_picture([*DIFF, "--top", "4", "-q"], PICTURES / "terminal.svg")
    page_pictures(DIFF)
