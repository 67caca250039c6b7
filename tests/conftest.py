"""Fixtures that are dear: one tiny run of the whole pipeline serves all of its tests."""

from __future__ import annotations

import pytest

from pipeline_cases import Bench, Server, make_experiment

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
    """A finished tiny run and the means to run more; made when the first test asks for it."""
    root = tmp_path_factory.mktemp("tiny")
    experiment = make_experiment(root)
    finished = root / "runs" / "tiny"
    first = Bench(server, experiment, finished)
    ended = first.run(finished.parent)
    assert ended.code == 0, ended.output
    return first


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory):
    """A finished run to export from and to certify; copy it to change it."""
    # Here, so that tests without it load no model's libraries.
    from export_cases import make_run

    return make_run(tmp_path_factory.mktemp("export"))
