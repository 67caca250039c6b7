"""The docs say what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_reference_is_up_to_date():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.REFERENCE.read_text(encoding="utf-8") == generate.reference(), "run `make docs`"


def test_links_between_documents_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_names_every_make_target_it_needs():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"{target}:" in makefile
        assert f"make {target}" in readme
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in ci


def test_every_row_of_compatibility_is_a_test():
    """A row whose last cell names no test that is there would be a promise."""
    there = {
        name
        for path in (ROOT / "tests").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    rows = [row for row in rows if not row.startswith("| tried ")]
    assert len(rows) > 50
    before: set[str] = set()
    for row in rows:
        last = row.rstrip(" |").rpartition("|")[2]
        named = set(re.findall(r"test_\w+", last)) or (before if last.strip() == "same" else set())
        assert named, row
        assert named <= there, f"{row}: {named - there}"
        before = named
