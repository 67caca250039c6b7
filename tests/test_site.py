"""The documentation as a site, and what a reader sees of a report on screens of two widths."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from pulse_unlearn.report import build_report
from synthetic_run import Recipe, write_run

ROOT = Path(__file__).parents[1]


def screenshots():
    spec = importlib.util.spec_from_file_location("screenshots", ROOT / "docs" / "screenshots.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(find_spec("material") is None, reason="mkdocs-material is not installed")
def test_the_site_is_built_strictly_and_fetches_nothing(tmp_path):
    """A link that leads nowhere, or a page that the navigation forgets, is an error."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {page.name: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.html")}
    for source in (ROOT / "docs").glob("*.md"):
        assert f"{source.stem}.html" in pages
    outside = r'"(?:https?:)?//'
    fetched = rf"<(?:script|img|iframe)[^>]*src={outside}|<link[^>]*href={outside}"
    assert not [name for name, text in pages.items() if re.search(fetched, text)]
    assert not list(tmp_path.rglob("*.py"))


@pytest.mark.slow  # a browser
@pytest.mark.skipif(
    find_spec("playwright") is None or screenshots().browser_path() is None,
    reason="playwright or chromium is not installed",
)
def test_a_report_is_as_wide_as_its_screen(tmp_path):
    """Nothing has to be panned sideways, on a laptop or on a telephone."""
    run = write_run(tmp_path / "run", Recipe(methods=("GA",), seeds=(0, 1), conditions=True))
    pictures = screenshots()
    for width, wide in pictures.take(
        build_report(run).path.as_uri(), tmp_path / "taken", "report"
    ).items():
        assert wide <= width
        with Image.open(tmp_path / "taken" / f"report-{width}.png") as taken:
            assert taken.size == (width, pictures.SCREENS[width])


def test_the_pictures_of_the_docs_are_of_those_screens():
    for width, height in screenshots().SCREENS.items():
        for name in ("report", "view"):
            with Image.open(ROOT / "docs" / "images" / f"{name}-{width}.png") as picture:
                assert picture.size == (width, height)
