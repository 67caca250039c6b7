"""Fixtures that are dear: one tiny run of the whole pipeline serves all of its tests."""

from __future__ import annotations

import pytest

from pipeline_cases import Bench, Server, make_experiment


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """A finished tiny run and the means to run more; made when the first test asks for it."""
    root = tmp_path_factory.mktemp("tiny")
    with Server(root) as server:
        experiment = make_experiment(root)
        finished = root / "runs" / "tiny"
        first = Bench(server, experiment, finished)
        ended = first.run(finished.parent)
        assert ended.code == 0, ended.output
        yield first
