"""The versions the tests are run with: complete, exact, and those that the project allows."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from recipes.lock import LOCK, lock, versions_here

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ASKED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


def pins(text):
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line) for line in lines), lines
    return dict(line.split("==") for line in lines)


def test_every_line_pins_one_public_version_once():
    """Mutations: `Version.public` left out (torch's `+cpu`); paths and hosts of `pip freeze`."""
    text = LOCK.read_text(encoding="utf-8")
    found = pins(text)
    assert [*found] == sorted(found)
    assert len(found) == text.count("==") > 90
    assert "/" not in "".join(line for line in text.splitlines() if not line.startswith("#"))


def test_the_lock_is_what_the_project_allows_and_names_no_torchvision():
    found = pins(LOCK.read_text(encoding="utf-8"))
    for requirement in map(Requirement, ASKED):
        assert requirement.specifier.contains(found[canonicalize_name(requirement.name)])
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, _, wanted = line.partition("==")
        assert found[name] == wanted
    assert not {"torchvision", "pulse-unlearn", "pip"} & found.keys()


def test_what_is_written_follows_every_requirement(monkeypatch):
    """Mutation: markers are not asked."""
    try:
        version("pulse-unlearn")
    except PackageNotFoundError:
        pytest.skip("the package is not installed, only on the path")
    now = versions_here()
    assert pins(lock()) == now
    # huggingface-hub asks for it by way of httpx or the like; nobody names it here.
    assert "certifi" in now
    assert not any("win" in name for name in now)
    assert all(Version(now[name]).local is None for name in now)
    assert Version(version("torch")).public == now["torch"]
