"""Pictures of a report for `first-ten-minutes.md`: `python docs/screenshots.py RUN` writes both.

Taken by Chromium (Debian's package, or the one that Playwright fetches) without a network.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SCREENS = {1280: 800, 390: 844}
"""Width -> height, pixels: a laptop's window, a telephone's."""
IMAGES = Path(__file__).parent / "images"


def browser_path() -> str | None:
    """Return the Chromium of this system; None leaves it to Playwright's own."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def take(report: Path, folder: Path) -> dict[int, int]:
    """Write `report-WIDTH.png` for each screen; return how many pixels wide the page really is."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path(), args=["--no-sandbox", "--hide-scrollbars"]
        )
        for width, height in SCREENS.items():
            screen = browser.new_context(
                viewport={"width": width, "height": height}, offline=True, color_scheme="light"
            )
            page = screen.new_page()
            page.goto(report.absolute().as_uri())
            page.screenshot(path=folder / f"report-{width}.png")
            found[width] = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    return found


def main() -> None:
    """Take the pictures of one run's report."""
    run = Path(sys.argv[1])
    for width, wide in take(run / "report.html", IMAGES).items():
        print(f"{width}: the page is {wide} pixels wide")


if __name__ == "__main__":
    main()
