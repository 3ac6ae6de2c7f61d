"""The page in a real browser: what a reader sees and does, and what hostile names must not do."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from report_samples import HOSTILE_NAMES, comparison, shape, stack, ten_thousand_sites
from truth import TESTDATA, TruthDump

from browser.page_driver import FLAGS, browser_path, opened
from dumpleak.cli import main
from dumpleak.compare.answers import Comparison
from dumpleak.model.units import format_bytes, format_count
from dumpleak.reports.answers.diff import diff_document
from dumpleak.reports.page.writer import write_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(browser_path() is None, reason="no browser, or Playwright is not installed"),
]

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
FILES = [str(PAIR / "before.dmp.gz"), str(PAIR / "after.dmp.gz")]
KERNEL = TESTDATA / "kernel" / "22621-x64" / "tiny-pair"
SERIES = TESTDATA / "10.0.22621.4541-x64" / "series-ust"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        yield browser
        browser.close()


def run(output: Path, *args: str) -> Path:
    with pytest.raises(SystemExit) as stop:
        main([*args, "-o", str(output)])
    assert not stop.value.code
    return output


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("pages") / "diff.html", "diff", *FILES, "--format", "html")


@pytest.fixture(scope="module")
def pair_json(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = run(tmp_path_factory.mktemp("json") / "diff.json", "diff", *FILES, "--format", "json")
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def written(path: Path, answer: Comparison) -> Path:
    stream = io.StringIO()
    write_page(diff_document(answer, None), stream)
    path.write_text(stream.getvalue(), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "kind", ["diff", "info", "trend", "leaks", "pool", "pool-growth", "info-kernel"]
)
def test_pages_load_without_complaint_and_fetch_nothing(
    browser: Browser, tmp_path: Path, kind: str
) -> None:
    dumps = {
        "diff": FILES,
        "info": FILES[:1],
        "trend": [str(SERIES / f"dump{number}.dmp.gz") for number in range(4)],
        "leaks": FILES[1:],
        "info-kernel": [str(KERNEL / "after.dmp.xz")],
        "pool": [str(KERNEL / "after.dmp.xz")],
        "pool-growth": [str(KERNEL / "before.dmp.xz"), str(KERNEL / "after.dmp.xz")],
    }
    command = kind.partition("-")[0]
    page = run(tmp_path / "page.html", command, *dumps[kind], "--format", "html")
    with opened(browser, page, charts=True) as watched:
        assert watched.complaints == []
        assert watched.requests == [page.as_uri()]
        assert watched.page.locator("table tbody tr").count() > 0
        charts = watched.page.locator(".chart[data-drawn]").count()
        assert charts == {"diff": 2, "info": 1, "trend": 2, "info-kernel": 0}.get(kind, 1)


def test_sites_come_ranked_and_sort_by_any_column(
    browser: Browser, pair: Path, pair_json: dict[str, Any]
) -> None:
    sites = pair_json["sites"]
    with opened(browser, pair) as watched:
        assert watched.column("sites", 1) == [
            format_bytes(site["delta_bytes"], signed=True) for site in sites
        ]
        watched.page.get_by_role("button", name="blocks +/-").first.click()
        counts = sorted((site["delta_count"] for site in sites), reverse=True)
        assert watched.column("sites", 2) == [format_count(count, signed=True) for count in counts]
        watched.page.get_by_role("button", name="blocks +/-").first.click()
        assert watched.column("sites", 2)[0] == format_count(counts[-1], signed=True)
        watched.page.locator("#sites thead button", has_text="site").click()
        assert watched.column("sites", 8) == sorted(watched.column("sites", 8))


def test_a_filter_leaves_the_sites_whose_name_or_stack_has_all_words(
    browser: Browser, pair: Path, pair_json: dict[str, Any]
) -> None:
    frame = pair_json["sites"][3]["frames"][-2]
    expected = [
        site["name"]
        for site in pair_json["sites"]
        if frame in site["frames"] and any("widgets" in f for f in site["frames"])
    ]
    assert expected
    with opened(browser, pair) as watched:
        watched.page.fill("#sites input[type=search]", f"{frame.upper()} widgets")
        assert watched.column("sites", 8) == expected
        assert watched.texts("#sites .count") == [
            f"{len(expected)} of {len(pair_json['sites'])} rows"
        ] or (len(expected) == len(pair_json["sites"]))
        watched.page.fill("#sites input[type=search]", "no such frame")
        assert watched.column("sites", 8) == []


def test_an_opened_site_shows_its_stack_and_blocks_of_the_truth(
    browser: Browser, pair: Path, pair_json: dict[str, Any]
) -> None:
    truth = TruthDump(PAIR / "after.dmp.gz", PAIR / "truth-after.json.gz").read_truth()
    with opened(browser, pair) as watched:
        watched.page.locator("#sites td.name > button").first.click()
        assert watched.texts("#sites .frames li") == pair_json["sites"][0]["frames"]
        samples = watched.texts("#sites .samples li")
        assert samples
        assert {int(address, 16) for address in samples} <= truth.sizes.keys()
        chart = watched.page.locator("#sites .sizes[data-drawn]")
        chart.wait_for()
        bars = chart.evaluate("host => host.data.map(trace => trace.y.reduce((a, b) => a + b, 0))")
        site = pair_json["sites"][0]
        assert bars == [site["base_count"], site["current_count"]]
        assert watched.complaints == []


def test_a_link_opens_its_site(browser: Browser, pair: Path, pair_json: dict[str, Any]) -> None:
    with opened(browser, pair) as watched:
        watched.page.locator("#sites td.name > button").nth(40).click()
        fragment = "#" + watched.page.url.partition("#")[2]
    assert fragment.startswith("#site-")
    with opened(browser, pair, fragment) as watched:
        assert watched.texts("#sites .frames li") == pair_json["sites"][40]["frames"]


def test_the_flame_graph_shows_the_numbers_of_the_json_report(
    browser: Browser, pair: Path, pair_json: dict[str, Any]
) -> None:
    totals = pair_json["totals"]
    with opened(browser, pair, charts=True) as watched:
        facts = watched.facts()
        assert facts["change"] == format_bytes(totals["delta_bytes"], signed=True)
        assert facts["blocks"] == format_count(totals["delta_count"], signed=True)
        assert facts["base"] == format_bytes(totals["base_bytes"])
        assert facts["current"] == format_bytes(totals["current_bytes"])
        drawn = watched.page.evaluate("document.getElementById('flame-chart').data[0]")
        changes = sum(abs(site["delta_bytes"]) for site in pair_json["sites"])
        assert drawn["values"][drawn["parents"].index("")] == changes
        # Down the worst stack, caller by caller, to the frame that allocates.
        worst = pair_json["sites"][0]
        frames = worst["frames"][worst["frames"].index(worst["name"]) :]
        for frame in reversed(frames):
            watched.page.locator("#flame .kids button").get_by_text(frame, exact=True).click()
        assert watched.facts()["change"] == format_bytes(
            sum(
                s["delta_bytes"]
                for s in pair_json["sites"]
                if s["frames"][-len(frames) :] == frames
            ),
            signed=True,
        )
        watched.page.select_option("#flame select", "current")
        drawn = watched.page.evaluate("document.getElementById('flame-chart').data[0]")
        assert drawn["values"][drawn["parents"].index("")] == totals["current_bytes"]
        assert watched.complaints == []


def test_a_click_into_the_flame_graph_moves_the_panel(browser: Browser, pair: Path) -> None:
    with opened(browser, pair, charts=True) as watched:
        watched.page.wait_for_selector("#flame-chart g.slice")
        watched.page.locator("#flame-chart g.slice").nth(3).click(position={"x": 20, "y": 5})
        watched.page.wait_for_function(
            "document.querySelectorAll('#flame .path button').length === 4"
        )
        assert watched.complaints == []


def test_red_grew_and_blue_shrank(browser: Browser, tmp_path: Path) -> None:
    answer = comparison(
        [(stack("grows"), (10, 1), (900, 9)), (stack("shrinks"), (800, 8), (10, 1))]
    )
    with opened(browser, written(tmp_path / "page.html", answer), charts=True) as watched:
        drawn = watched.page.evaluate("document.getElementById('flame-chart').data[0]")
        colours = dict(zip(drawn["labels"], drawn["marker"]["colors"], strict=True))
        red = {name: [int(v) for v in text[4:-1].split(",")] for name, text in colours.items()}
        assert red["grows"][0] > red["grows"][2] + 50
        assert red["shrinks"][2] > red["shrinks"][0] + 50
        assert watched.facts()["grew"] == "+890 B"
        assert watched.facts()["shrank"] == "-790 B"


def test_the_keyboard_is_enough(browser: Browser, pair: Path, pair_json: dict[str, Any]) -> None:
    with opened(browser, pair) as watched:
        keys = watched.page.keyboard
        keys.press("/")
        keys.type("app.exe")
        keys.press("ArrowDown")
        keys.press("ArrowDown")
        keys.press("Enter")
        assert watched.page.locator("#sites tr.detail").count() == 1
        assert watched.texts("#sites .frames li") == pair_json["sites"][1]["frames"]
        keys.press("Escape")
        assert watched.page.locator("#sites tr.detail").count() == 0


def test_hostile_names_are_text_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    answer = comparison(
        [
            *((stack(name, "main"), (10, 1), (100, 2)) for name in HOSTILE_NAMES),
            *((shape(name), (1000, 2), (10, 1)) for name in HOSTILE_NAMES),
        ],
        program=HOSTILE_NAMES[0],
    )
    page = written(tmp_path / "page.html", answer)
    with opened(browser, page) as watched:
        for number in range(len(HOSTILE_NAMES)):
            watched.page.locator("#sites td.name > button").nth(number).click()
        for name in HOSTILE_NAMES[:4]:
            watched.page.fill("#sites input[type=search]", name)
            assert any(name.lower() in shown.lower() for shown in watched.column("sites", 8))
        watched.page.fill("#sites input[type=search]", "")
        assert "owned" not in watched.page.title().replace(HOSTILE_NAMES[0], "")
        assert watched.page.evaluate("document.title") != "owned"
        # The page's own elements only: three data islands, its script and the chart library.
        assert watched.page.locator("script").count() == 5
        assert watched.page.locator("main img, main b, main svg a, main a[href^=http]").count() == 0
        assert watched.page.locator("[onerror], [onmouseover], [onload]").count() == 0
        text = watched.page.locator("body").inner_text()
        assert not {"\u202e", "\u200f", "\x1b", "\x00"} & set(text)
        assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert watched.complaints == []
        assert watched.requests == [page.as_uri()]


def test_the_policy_stops_scripts_and_requests_that_are_not_ours(
    browser: Browser, pair: Path
) -> None:
    with opened(browser, pair) as watched:
        watched.page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "document.title = 'owned'";
                document.body.append(script);
                document.body.insertAdjacentHTML("beforeend", "<img src=https://example.com/x.png>");
            }"""
        )
        assert watched.page.title() != "owned"
        assert watched.page.evaluate("fetch('https://example.com/').then(() => 1, () => 0)") == 0
        assert any("script" in text for text in watched.complaints)
        assert sum("Content Security Policy" in text for text in watched.complaints) >= 3


def test_ten_thousand_sites_stay_small_and_show_a_first_page(
    browser: Browser, tmp_path: Path
) -> None:
    answer = ten_thousand_sites()
    page = written(tmp_path / "page.html", answer)
    assert page.stat().st_size < 8 * 1024 * 1024
    with opened(browser, page) as watched:
        assert len(watched.column("sites", 0)) == 50
        assert watched.texts("#sites .count") == [f"{len(answer.sites):,} rows"]
        last = answer.sites[-1].site.frames[-1]
        watched.page.fill("#sites input[type=search]", last)
        assert watched.column("sites", 8)
        assert watched.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_until_they_are_chosen(
    browser: Browser, pair: Path, scheme: str
) -> None:
    def brightness() -> int:
        colour = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour[4:-1].split(","))

    with opened(browser, pair, color_scheme=scheme) as watched:
        assert (brightness() > 600) == (scheme == "light")
        watched.page.locator("#theme").click()
        assert brightness() > 600
        watched.page.locator("#theme").click()
        assert brightness() < 200


def test_a_narrow_screen_needs_no_sideways_scrolling(browser: Browser, pair: Path) -> None:
    with opened(browser, pair, viewport={"width": 400, "height": 800}) as watched:
        watched.page.locator("#sites td.name > button").first.click()
        assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert watched.page.locator("#sites td.name").first.is_visible()


def test_print_leaves_controls_out_and_is_light(browser: Browser, pair: Path) -> None:
    with opened(browser, pair, color_scheme="dark") as watched:
        watched.page.emulate_media(media="print")
        assert not watched.page.locator("#sites .controls").is_visible()
        assert watched.page.locator("#sites td.name").first.is_visible()
        colour = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colour == "rgb(255, 255, 255)"
