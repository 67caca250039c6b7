"""The pages in a real browser: what a reader sees, at both widths, light and dark.

Needs the package playwright and a chromium of the system; else these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pulse_unlearn.report import build_report
from pulse_unlearn.store.stages import HOLDER
from pulse_unlearn.view import ViewServer
from synthetic_run import Recipe
from synthetic_run import write_run as write_synthetic
from view_cases import AFTER, HOSTILE, RETAIN_MODEL, copy_run, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync")  # fmt: skip
WIDTHS = (390, 1280)
PANS = """() => {
  const wide = [...document.querySelectorAll("body *")].filter((one) =>
    one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 1
    && ["auto", "scroll"].includes(getComputedStyle(one).overflowX));
  const told = wide.map((one) => one.outerHTML.slice(0, 80));
  return [document.documentElement.scrollWidth - innerWidth, ...told];
}"""
"""How far the page pans sideways, and what in it does."""

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is missing")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this system"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        playwright.expect.set_options(timeout=30_000)
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page that fails its test on any error in its console."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    opened, errors = context.new_page(), []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    opened.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    yield opened
    context.close()
    assert errors == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("browser") / "whole")


@pytest.fixture
def site(whole: Path, tmp_path: Path) -> Iterator[ViewServer]:
    runs = tmp_path / "runs"
    copy_run(whole, runs / "whole")
    (runs / "photos").mkdir()
    with ViewServer(runs) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _shows(page: Any, count: str) -> None:
    playwright.expect(page.locator("#top-count")).to_have_text(count)


def test_from_the_list_to_an_answer_side_by_side(site: ViewServer, page: Any) -> None:
    page.goto(site.address)
    playwright.expect(page.locator("main")).to_contain_text("not a run folder")
    page.click("text=whole")
    first = page.locator("article").first
    first.wait_for()
    assert first.locator("dt").all_inner_texts() == ["before", "after GA", "retain model"]
    _shows(page, "1–20 of 20")
    picture = first.locator("img")
    picture.scroll_into_view_if_needed()
    playwright.expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("(one) => one.naturalWidth") > 0
    first.locator("summary", has_text="Every stored answer").click()
    assert first.locator("tbody tr", has_text="In words, no options").count() == 1
    assert first.locator("tbody tr", has_text="Options moved by").count() == 3
    page.check("#k-unreadable")
    _shows(page, "1–2 of 2")
    assert "kinds=unreadable" in page.url
    page.go_back()
    _shows(page, "1–20 of 20")
    page.click("#tab-results")
    page.wait_for_selector("td:has-text('one letter')")


def test_hostile_answers_are_text(site: ViewServer, page: Any) -> None:
    page.goto(f"{site.address}#/run/whole?search=onerror")
    page.wait_for_selector("article")
    assert HOSTILE.rstrip("\u202e") in page.inner_text("article")
    assert page.locator("article img").count() == 0


def test_the_keyboard_alone_is_enough(site: ViewServer, page: Any) -> None:
    page.goto(f"{site.address}#/run/whole?set=any&request=any")
    page.wait_for_selector("article")
    page.keyboard.press("n")
    _shows(page, "26–50 of 68")
    page.keyboard.press("/")
    page.keyboard.type("lucia")
    page.wait_for_timeout(420)  # the page begins to look
    page.keyboard.type(" palmer")
    _shows(page, "1–20 of 20")
    assert page.evaluate("document.activeElement.id") == "f-search"
    assert page.input_value("#f-search") == "lucia palmer"
    page.focus("#f-modality")
    page.keyboard.press("ArrowDown")
    _shows(page, "1–10 of 10")
    assert page.evaluate("document.activeElement.id") == "f-modality"


def test_a_running_run_is_followed(whole: Path, site: ViewServer, page: Any) -> None:
    run = copy_run(whole, site.library.root / "young", without=(AFTER, RETAIN_MODEL))
    note = run / HOLDER
    told = {"pid": os.getpid(), "host": socket.gethostname(), "started": ""}
    note.write_text(json.dumps(told))
    page.goto(site.address)
    young = page.locator(".runs li", has_text="young")
    young.wait_for()
    assert "running" in young.inner_text()
    assert "2 of 4 stages" in young.inner_text()
    for stage in (whole / "stages").iterdir():
        if not (run / "stages" / stage.name).exists():
            shutil.copytree(stage, run / "stages" / stage.name)
    for name in ("results.csv", "results.json"):
        shutil.copy(whole / name, run / name)
    playwright.expect(young).to_contain_text("complete")
    playwright.expect(young).to_contain_text("4 of 4 stages")


def test_no_page_pans_sideways_in_light_or_dark(site: ViewServer, page: Any) -> None:
    backgrounds = set()
    for width, scheme in zip(WIDTHS, ("dark", "light"), strict=True):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        for place in ("#/", "#/run/whole?set=any&request=any", "#/run/whole?tab=results&set=any"):
            page.goto("about:blank")
            page.goto(site.address + place)
            page.wait_for_selector(".runs" if place == "#/" else ".bar")
            for one in page.locator("summary").all()[:6]:
                one.click()
            assert page.evaluate(PANS) == [0], (width, place)
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(scenarios=("pretrained",), methods=("GA", "NPO"), samples=8)
    return build_report(write_synthetic(tmp_path_factory.mktemp("report") / "run", recipe)).path


def test_the_report_never_pans_sideways(report: Path, page: Any) -> None:
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(PANS) == [0], width


def test_the_report_filters_its_samples_without_a_script(report: Path, page: Any) -> None:
    page.goto(report.as_uri())
    samples = page.locator(".sample:visible")
    assert samples.count() == 8
    page.check("#only-unreadable")
    assert samples.count() == page.locator(".sample.is-unreadable").count() == 2
    page.check("#only-mentions")
    assert samples.count() == 0
    page.uncheck("#only-unreadable")
    assert samples.count() == page.locator(".sample.is-mentions").count() == 2


def test_what_is_folded_is_printed_and_no_table_is_cut(report: Path, page: Any) -> None:
    page.goto(report.as_uri())
    page.set_viewport_size({"width": 700, "height": 1000})  # A4 between its margins
    folded = page.locator("details:not(.long):not([open]) table").first
    assert not folded.is_visible()
    page.emulate_media(media="print")
    assert folded.is_visible()
    assert not page.locator("details.long pre").first.is_visible()
    cut = """() => [...document.querySelectorAll("table")].filter((one) =>
      one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.caption?.innerText)"""
    assert page.evaluate(cut) == []
