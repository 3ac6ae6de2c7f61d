"""A real browser for tests of the page, where one is installed: Chromium, driven by Playwright.

Nothing is downloaded: an installed browser is used, or the one that DUMPLEAK_BROWSER names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def browser_path() -> str | None:
    """The browser to use; None when there is none, or no Playwright."""
    if find_spec("playwright") is None:
        return None
    named = os.environ.get("DUMPLEAK_BROWSER")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Watched:
    """An open page, and all it said and asked for.

    Attributes:
        page: Playwright's page.
        complaints: Console errors and warnings, and exceptions.
        requests: Addresses of everything that was asked for, the file itself first.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        return [text.strip() for text in self.page.locator(selector).all_inner_texts()]

    def column(self, grid: str, number: int) -> list[str]:
        """Texts of one column of a grid's rows, from 0; opened rows are left out."""
        return self.texts(f"#{grid} tbody tr:not(.detail) > td:nth-child({number + 1})")

    def facts(self) -> dict[str, str]:
        """Numbers of the frame that is selected in the flame graph."""
        rows = self.texts("#flame aside table.facts tr")
        return dict(row.split("\t") for row in rows)


@contextmanager
def opened(
    browser: Browser, path: Path, fragment: str = "", charts: bool = False, **options: Any
) -> Iterator[Watched]:
    """Opens a page file and waits until sites can be opened; with `charts`, until these are drawn."""
    # Bigger than the table's first page, and offline: nothing may be fetched anyway.
    options = {"viewport": {"width": 1280, "height": 900}, "offline": True, **options}
    context = browser.new_context(**options)
    try:
        page = context.new_page()
        watched = Watched(page)
        page.on(
            "console",
            lambda message: (
                watched.complaints.append(f"{message.type}: {message.text}")
                if message.type in ("error", "warning")
                else None
            ),
        )
        page.on("pageerror", lambda error: watched.complaints.append(str(error)))
        page.on("request", lambda request: watched.requests.append(request.url))
        page.goto(path.as_uri() + fragment)
        ready = "html[data-ready=charts]"
        if not charts:
            ready += ", html[data-ready=details]"
        page.wait_for_selector(ready, state="attached")
        yield watched
    finally:
        context.close()
