"""What workers have, what stages need of it, and what is refused before anything is computed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from pipeline_cases import environment
from pulse_unlearn.cli import pulse
from pulse_unlearn.config import ModelSettings, load_experiment
from pulse_unlearn.errors import TooLarge
from pulse_unlearn.estimate.room import doubts_of, fits_of, places_of, problems_of, require_room
from pulse_unlearn.launch import Fleet, Machine, Memory, fleet_of
from pulse_unlearn.launch.devices import this_machine, visible_gpus
from pulse_unlearn.launch.schedule import moments
from pulse_unlearn.registries import schemas

GB = 10**9
MACHINE = Memory("memory of here", 64 * GB, 60 * GB)
CARD = Memory("GPU 0 (a card)", 24 * GB, 24 * GB)
PLAIN = ModelSettings()
PARENTS = {"f": (), "a": ("f",), "b": ("f",), "c": ("f",)}
PLAN = SimpleNamespace(
    stages=[SimpleNamespace(name=name, parents=of) for name, of in PARENTS.items()]
)


def stage(name, operations=1.0, **memory):
    sizes = {key.replace("_", " "): round(size * GB) for key, size in memory.items()}
    return SimpleNamespace(name=name, operations=operations, memory=sizes)


def fits(stages, machine, settings=PLAIN, **more):
    return fits_of(PLAN, stages, Fleet((machine,)), settings, **more)


FOUR = [stage(name, weights=20, gradients=2, activations=30) for name in PARENTS]


def test_the_stages_that_meet_are_those_that_the_coordinator_starts_together():
    """b and c are at work when a ends."""
    seconds = {"f": 5.0, "a": 1.0, "b": 2.0, "c": 2.0}.__getitem__
    met = [(now, set(busy)) for now, busy in moments(PARENTS, seconds, workers=2)]
    assert met == [(5.0, {"f"}), (6.0, {"a", "b"}), (7.0, {"b", "c"}), (8.0, {"c"})]


def test_workers_of_a_machine_share_its_memory_and_the_weights_in_it():
    """Three of 22 GB, 20 of which lie there once; four times 52 by the full estimate."""
    [found] = fits(FOUR, Machine(3, MACHINE))
    assert (found.certain, found.likely) == (26 * GB, 3 * 52 * GB)
    assert set(found.stages) == {"a", "b", "c"}
    assert problems_of([found], PLAIN) == []
    [doubt] = doubts_of([found], PLAIN)
    assert "3 workers may take 156.0 GB, of which 60.0 GB are free; fewer workers" in doubt
    assert "gradient_checkpointing=true" in doubt


def test_workers_that_share_a_gpu_hold_their_weights_each():
    """Five workers on two cards: three and two; 44 GB do not fit into 24, 22 do."""
    machine = Machine(5, MACHINE, (CARD, CARD))
    assert [one.workers for one in places_of(Fleet((machine,)), PLAIN)] == [3, 2]
    [found] = fits(FOUR, Machine(2, MACHINE, (CARD,)))
    [problem] = problems_of([found], PLAIN)
    assert problem.where.endswith(" and 1 beside it")
    assert problem.got.startswith("44.0 GB at least")
    assert problem.allowed == "24.0 GB, GPU 0 (a card)"
    assert problem.fix.startswith("at most 1 at a time there")
    assert "model.dtype=bfloat16" in problem.fix
    assert problems_of(fits(FOUR, Machine(2, MACHINE, (CARD, CARD))), PLAIN) == []
    on_cores = ModelSettings(device="cpu")
    assert [one.memory for one in places_of(Fleet((machine,)), on_cores)] == [MACHINE]


def test_one_stage_too_large_for_a_worker_is_named_alone():
    big = [*FOUR[:3], stage("c", weights=20, optimiser=50)]
    [problem] = problems_of(fits(big, Machine(2, MACHINE)), PLAIN)
    assert problem.where == "c"
    assert problem.got.startswith("70.0 GB")
    assert problem.fix.startswith("a device with more memory")
    assert "update: lora in place of full" in problem.fix


def test_what_is_done_or_spread_or_fits_somewhere_is_not_refused():
    big = [*FOUR[:3], stage("c", weights=70)]
    assert fits(big, Machine(2, MACHINE), done={"c"})[0].certain < 64 * GB
    spread = ModelSettings(device_map="auto")
    assert problems_of(fits(big, Machine(2, MACHINE), spread), spread) == []
    wide = Memory("GPU 1 (a wide card)", 80 * GB, 80 * GB)
    found = fits(big, Machine(2, MACHINE, (CARD, wide)))
    assert problems_of(found, PLAIN) == []
    assert [one.split(" may not")[0] for one in doubts_of(found, PLAIN)] == ["GPU 0 (a card)"]
    assert fits(big, Machine(2, None)) == []


SMI = """#!/bin/sh
echo "0, GPU-aa, NVIDIA A, 81920, 80000"
echo "1, GPU-bb, NVIDIA B, 24576, [N/A]"
echo "2, GPU-cc, NVIDIA C, 24576, 20000"
"""


def test_gpus_are_those_that_the_run_may_use_as_the_driver_tells_them(tmp_path, monkeypatch):
    command = tmp_path / "nvidia-smi"
    command.write_text(SMI)
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-aa,1,MIG-x")
    assert visible_gpus() == ["2", "GPU-aa", "1", "MIG-x"]
    found = this_machine(4)
    assert [one.name for one in found.gpus] == ["GPU 2 (NVIDIA C)", "GPU 0 (NVIDIA A)"]
    assert (found.gpus[1].total, found.untold) == (80 * 2**30, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (this_machine(1).gpus, this_machine(1).untold) == ((), 0)


def test_a_machines_memory_is_no_more_than_its_control_group_allows(monkeypatch):
    whole = this_machine(2).memory
    assert whole.total >= whole.free > 0
    monkeypatch.setattr("pulse_unlearn.launch.devices._limits", lambda: iter([2 * GB]))
    assert this_machine(2).memory.free == 2 * GB


def test_looking_at_files_tells_that_a_small_model_fits_without_torch():
    code = (
        "import sys\n"
        "from pulse_unlearn.config import ModelSettings\n"
        "from pulse_unlearn.estimate.room import _surely_fits\n"
        "from pulse_unlearn.launch import fleet_of\n"
        "assert _surely_fits(ModelSettings(), fleet_of('local:2'))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=60)


@pytest.fixture
def crowded(monkeypatch):
    """A machine of 8 MB, in which the embedded model's 15 do not fit."""
    tiny = Memory("memory of here", 8_000_000, 8_000_000)
    monkeypatch.setattr(
        "pulse_unlearn.launch.local.this_machine", lambda workers: Machine(workers, tiny)
    )


def test_plan_and_run_refuse_what_cannot_fit_by_the_same_words(crowded, tmp_path):
    less = ["smoke", "--on", "local:2", "--set", "scenarios.sustainability=null"]
    planned = CliRunner().invoke(pulse, ["plan", *less])
    assert isinstance(planned.exception, TooLarge)
    assert "on local:2: 2 workers on one machine, no GPU" in planned.output
    assert "times as fast" in planned.output.split("on local:2")[1]
    ran = CliRunner().invoke(pulse, ["run", *less, "--runs", str(tmp_path)])
    assert isinstance(ran.exception, TooLarge)
    assert str(ran.exception) == str(planned.exception)
    assert not (tmp_path / "smoke" / "stages").exists()


def test_what_several_processes_divide_is_not_judged_by_one_of_them(crowded):
    inputs = SimpleNamespace(
        experiment=load_experiment("smoke", overrides=["speed.sharding=layers"], schemas=schemas())
    )
    require_room(SimpleNamespace(inputs=inputs), fleet_of("local:2"))


def test_no_machine_is_started_to_look_at_it():
    assert fleet_of("local:3").workers == 3
    assert fleet_of("local").workers == 1
