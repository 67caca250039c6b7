"""kill -9, Ctrl-C and torn checkpoints: the same command ends with the same bytes."""

from __future__ import annotations

import random
import signal
import time

import pytest

from pipeline_cases import outcome
from pulse_unlearn import store

MOMENTS = (
    ("seed0.finetune", 1),  # before the stage has a folder
    ("step-00000003", 1),  # before the third checkpoint of fine-tuning takes its place
    ("adapter", 2),  # while an adapter is being written
    ("predictions.parquet", 1),
    ("sustainability", 6),  # while later stages are worked on
    ("results.json", 1),  # between the two forms of the results
    ("run.json", 2),  # before the index of the report
)
"""Part of a path, and before which change of such a path the process dies."""


def assert_as_uninterrupted(bench, run):
    assert outcome(run) == outcome(bench.finished)
    assert store.verify(run) == []
    assert not list(run.glob("stages/.partial-*"))
    assert not list(run.rglob(".writing-*"))
    assert not list(run.glob("stages/*/checkpoints"))


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_killed_at_chosen_moments_of_one_run(bench, tmp_path):
    for mark, events in MOMENTS:
        ended = bench.run(tmp_path, events=events, mark=mark)
        assert ended.code == -signal.SIGKILL, f"{mark}: {ended.output}"
    ended = bench.run(tmp_path)
    assert ended.code == 0, ended.output
    assert_as_uninterrupted(bench, tmp_path / "tiny")


@pytest.mark.slow
def test_killed_again_and_again(bench, tmp_path):
    """Half of the kills come at a random change of the disk, half at a random time."""
    chance = random.Random(7)
    kills = 0
    for number in range(20):
        runs = tmp_path / str(number)
        while True:
            if chance.random() < 0.5:
                ended = bench.run(runs, events=chance.randint(1, 150))
            else:
                life = bench.start(runs)
                until = time.monotonic() + chance.uniform(0.5, 6.0)
                while time.monotonic() < until and not life.ended():
                    time.sleep(0.01)
                if not life.ended():
                    life.send(signal.SIGKILL)
                ended = life.wait()
            if ended.code == 0:
                break
            assert ended.code == -signal.SIGKILL, ended.output
            kills += 1
            assert kills < 100, "the run gets no further"
        assert_as_uninterrupted(bench, runs / "tiny")
        if kills >= 25:
            break
    assert kills >= 25


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(bench, tmp_path, number):
    life = bench.start(tmp_path, "--set", "description=a b")
    life.wait_for("tiny/stages/.partial-seed0.finetune-*/checkpoints/step-*", tmp_path)
    sent = time.monotonic()
    life.send(number)
    ended = life.wait()
    assert time.monotonic() - sent < 10
    assert ended.code == 130, ended.output
    again = f"pulse run {bench.experiment} --set 'description=a b' --runs {tmp_path}"
    assert again in ended.output
    assert ended.output.count("stopped") == 1, "told once"
    assert "error" not in ended.output
    assert "Traceback" not in ended.output
    assert store.verify(tmp_path / "tiny") == []
    ended = bench.run(tmp_path)
    assert ended.code == 0, ended.output
    assert_as_uninterrupted(bench, tmp_path / "tiny")


def test_a_signal_saves_the_work_between_two_checkpoints(bench, tmp_path):
    later = ("--set", "checkpoint_seconds=600", "--set", "finetune.epochs=500")
    life = bench.start(tmp_path, *later)
    life.wait_for("tiny/stages/.partial-seed0.finetune-*", tmp_path)
    time.sleep(2)
    assert not list(tmp_path.rglob("step-*"))
    life.send(signal.SIGTERM)
    assert life.wait(limit=10).code == 130
    assert len(list(tmp_path.rglob("checkpoints/step-*"))) == 1


def test_the_second_ctrl_c_leaves_at_once(bench, tmp_path):
    life = bench.start(tmp_path, poison="slow")
    life.wait_for("tiny/stages/.partial-seed0.finetuned.ga.unlearn-*", tmp_path)
    time.sleep(1)
    life.send(signal.SIGINT)
    time.sleep(0.5)
    assert not life.ended(), "the first one waits for the step"
    life.send(signal.SIGINT)
    ended = life.wait(limit=5)
    assert ended.code == 130, ended.output
    assert "Traceback" not in ended.output
    assert "stopped" in ended.output


@pytest.mark.parametrize(
    "harm",
    [
        "truncate",
        pytest.param("flip", marks=pytest.mark.slow),
        pytest.param("remove", marks=pytest.mark.slow),
    ],
)
def test_a_torn_checkpoint_is_named_and_the_one_before_it_used(bench, tmp_path, harm):
    bench.run(tmp_path, events=1, mark="step-00000004")
    (newest,) = tmp_path.rglob("step-00000003")
    assert (newest.parent / "step-00000002").is_dir()
    victim = newest / "state.safetensors"
    data = bytearray(victim.read_bytes())
    if harm == "remove":
        victim.unlink()
    elif harm == "truncate":
        victim.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    ended = bench.run(tmp_path)
    assert ended.code == 0, ended.output
    assert "warning: checkpoint step-00000003 is damaged" in ended.output
    assert "state.safetensors" in ended.output
    assert_as_uninterrupted(bench, tmp_path / "tiny")
