"""A launcher: stages carried out by several processes that share one run folder."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from pipeline_cases import LIMIT, computed, environment, outcome
from pulse_unlearn import store
from pulse_unlearn.config import load_experiment
from pulse_unlearn.errors import StoreError
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.pipeline.run import run_stage
from pulse_unlearn.registries import schemas

WORKER = """
import sys
from pathlib import Path
from pulse_unlearn.config import load_experiment
from pulse_unlearn.pipeline.run import run_stage
from pulse_unlearn.registries import schemas
run_stage(load_experiment(sys.argv[1], schemas=schemas()), Path(sys.argv[2]), sys.argv[3])
"""


def launch(experiment, runs, *, workers, names=None):
    """Start what rests on nothing unfinished, so many processes at a time, until all is done."""
    plan = read_inputs(load_experiment(str(experiment), schemas=schemas())).plan
    left = {stage.name: stage for stage in plan.stages if names is None or stage.name in names}
    at_work, until = {}, time.monotonic() + LIMIT
    while left or at_work:
        assert time.monotonic() < until
        for name in [name for name, process in at_work.items() if process.poll() is not None]:
            assert at_work.pop(name).returncode == 0, name
        waiting = {*left, *at_work}
        for name in [name for name, one in left.items() if not waiting & {*one.parents}]:
            if len(at_work) < workers:
                command = [sys.executable, "-c", WORKER, str(experiment), str(runs), name]
                at_work[name] = subprocess.Popen(command, env=environment())
                del left[name]
        time.sleep(0.05)


@pytest.mark.slow
def test_a_plan_carried_out_by_two_processes_is_the_run_of_one(bench, tmp_path):
    launch(bench.experiment, tmp_path, workers=2)
    ended = bench.run(tmp_path)
    assert ended.code == 0, ended.output
    assert computed(ended) == []
    assert outcome(tmp_path / "tiny") == outcome(bench.finished)
    assert store.verify(tmp_path / "tiny") == []


@pytest.mark.slow  # tests/test_launch_processes.py has stages side by side in `make test`
def test_independent_stages_run_side_by_side_and_are_found(bench, tmp_path):
    side_by_side = {"seed0/finetune", "base/score-other-view"}
    launch(bench.experiment, tmp_path, workers=2, names=side_by_side)
    folders = sorted(path.name for path in (tmp_path / "tiny" / "stages").iterdir())
    assert len(folders) == 2
    loaded = load_experiment(str(bench.experiment), schemas=schemas())
    assert run_stage(loaded, tmp_path, "seed0/finetune") is False
    with pytest.raises(StoreError, match="rests on it"):
        run_stage(loaded, tmp_path, "seed0/finetuned/ga/score")
