"""`pulse run` as torchrun starts it: several processes do each stage together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline_cases import LIMIT, environment, result_rows

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


STILL = ("--set", "finetune.lora.dropout=0", "--set", "unlearn.lora.dropout=0")
"""Each rank draws its own dropout, so there is none."""

pytestmark = pytest.mark.slow  # whole runs; `test_ranks.py` has the quick cases


@pytest.fixture(scope="module")
def alone(bench, tmp_path_factory):
    """The run of one process."""
    runs = tmp_path_factory.mktemp("alone")
    ended = bench.run(runs, *STILL)
    assert ended.code == 0, ended.output
    return runs / "tiny"


def start(bench, runs):
    """Begin the tiny run in two ranks."""
    runs.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *LAUNCH, "-m", "pulse_unlearn", *bench.command(runs, *STILL)],
        env=environment() | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ranks_of(process):
    """The processes that torchrun has started, by rank."""
    found = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            with open(f"/proc/{pid}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            if parent != process.pid:
                continue
            with open(f"/proc/{pid}/environ", "rb") as file:
                told = dict(one.partition("=")[::2] for one in file.read().decode().split("\0"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "RANK" in told:
            found[int(told["RANK"])] = pid
    return found


def wait_for(pattern, runs, process):
    until = time.monotonic() + LIMIT
    while not list(runs.glob(pattern)):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def assert_alike(alone, run):
    """Every figure of the results is that of one process, to what float32 rounds."""
    mine, theirs = result_rows(run), result_rows(alone)
    assert len(mine) == len(theirs) > 0
    for row, expected in zip(mine, theirs, strict=True):
        for name, value in expected.items():
            try:
                assert float(row[name]) == pytest.approx(float(value), abs=1e-4), name
            except ValueError:
                assert row[name] == value


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="finds the ranks in /proc")
def test_a_rank_is_killed_and_one_process_goes_on(bench, alone, tmp_path):
    process = start(bench, tmp_path)
    wait_for("tiny/stages/.partial-seed0.finetune*/checkpoints/step-*", tmp_path, process)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    told, _ = process.communicate(timeout=LIMIT)
    assert process.returncode != 0, told
    ended = bench.run(tmp_path, *STILL)
    assert ended.code == 0, ended.output
    assert_alike(alone, tmp_path / "tiny")


def test_two_ranks_give_the_run_of_one_process_and_say_so(bench, alone, tmp_path):
    process = start(bench, tmp_path)
    told, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, told
    assert_alike(alone, tmp_path / "tiny")
    manifests = [
        json.loads(path.read_text()) for path in tmp_path.glob("tiny/stages/*/manifest.json")
    ]
    assert {one["notes"]["processes"] for one in manifests} == {2}
    before = {path.name for path in (alone / "stages").iterdir()}
    assert {path.name for path in (tmp_path / "tiny" / "stages").iterdir()} == before


def test_a_stop_ends_all_ranks_with_a_checkpoint(bench, alone, tmp_path):
    process = start(bench, tmp_path)
    wait_for("tiny/stages/.partial-seed0.finetune*/checkpoints/step-*", tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: torchrun adds SIGTERM
    told, _ = process.communicate(timeout=LIMIT)
    assert process.returncode != 0, told
    assert "this continues it" in told
    assert 'Traceback (most recent call last):\n  File "src' not in told
    again = start(bench, tmp_path)
    told, _ = again.communicate(timeout=LIMIT)
    assert again.returncode == 0, told
    assert_alike(alone, tmp_path / "tiny")
