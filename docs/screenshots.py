"""Pictures for `first-ten-minutes.md`: `python docs/screenshots.py RUN` writes all.

Those of a run's report, and of its answers in `pulse view`.

Taken by Chromium (Debian's package, or the one that Playwright fetches) without a network.
"""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path

SCREENS = {1280: 800, 390: 844}
"""Width -> height, pixels: a laptop's window, a telephone's."""
IMAGES = Path(__file__).parent / "images"


def browser_path() -> str | None:
    """Return the Chromium of this system; None leaves it to Playwright's own."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def take(address: str, folder: Path, name: str, *, wait_for: str = "body") -> dict[int, int]:
    """Write `NAME-WIDTH.png` for each screen; return how many pixels wide the page really is."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path(), args=["--no-sandbox", "--hide-scrollbars"]
        )
        for width, height in SCREENS.items():
            screen = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme="light"
            )
            page = screen.new_page()
            page.goto(address)
            page.wait_for_selector(wait_for)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=folder / f"{name}-{width}.png")
            found[width] = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    return found


def take_answers(run: Path, folder: Path) -> dict[int, int]:
    """Write `view-WIDTH.png`, the stored answers of a run in `pulse view`; return likewise."""
    from pulse_unlearn.view import ViewServer

    with ViewServer(run) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = take(
            f"{server.address}#/run/{run.name}?scenario=finetuned&request=1",
            folder,
            "view",
            wait_for="article",
        )
        server.shutdown()
    return found


def main() -> None:
    """Take the pictures of one run."""
    run = Path(sys.argv[1])
    report = take((run / "report.html").absolute().as_uri(), IMAGES, "report")
    for name, pages in (("report", report), ("view", take_answers(run, IMAGES))):
        for width, wide in pages.items():
            print(f"{name} at {width}: the page is {wide} pixels wide")


if __name__ == "__main__":
    main()
