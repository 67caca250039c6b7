"""Fixtures that are dear: one tiny run of the whole pipeline serves all of its tests."""

from __future__ import annotations

import os
import shutil

import pytest
from filelock import FileLock
from hypothesis import settings

from pipeline_cases import Bench, Server, make_experiment

# A machine with other work on it is no fault of what is tested.
settings.register_profile("pulse", deadline=None)
settings.load_profile("pulse")

LONG = (
    "test_wheel.py",
    "test_models_full.py",
    "test_world_larger.py",
    "test_packing_families.py",
    "test_pipeline_doors.py",
    "test_plugins_contract.py",
    "test_plugins_isolation.py",
)
"""Files that take longest are begun first, so that no worker is left with one at the end."""


def pytest_collection_modifyitems(items):
    """Put the long files first; the others keep their order."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The process that commands are forked from; it takes seconds to begin."""
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def bench(server, tmp_path_factory):
    """A finished tiny run and the means to run more; made when the first test asks for it.

    pytest's workers have a server each, and the run together.
    """
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "tiny"
    bench = Bench(server, root / "tiny.yaml", root / "runs" / "tiny")
    with FileLock(root.with_suffix(".lock")):
        if not (root / "ready").exists():
            shutil.rmtree(root, ignore_errors=True)
            make_experiment(root)
            ended = bench.run(bench.finished.parent)
            assert ended.code == 0, ended.output
            (root / "ready").touch()
    return bench


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory):
    """A finished run to export from and to certify; copy it to change it."""
    # Here, so that tests without it load no model's libraries.
    from export_cases import make_run

    return make_run(tmp_path_factory.mktemp("export"))


@pytest.fixture
def undrawn(monkeypatch):
    """Nothing is drawn: for tests of a page's words and tables."""
    from undrawn import stand_in

    stand_in(monkeypatch.setattr)
