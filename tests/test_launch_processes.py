"""Runs carried out by several processes, some of which are killed: the results are those of one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import pytest

from pipeline_cases import LIMIT, environment, in_own_process, outcome
from pulse_unlearn import store

KILLS = 50
PULSE = [sys.executable, "-c", "from pulse_unlearn.cli import main; main()"]


def start(bench, runs, where, *more, **variables):
    command = [*PULSE, *bench.command(runs, "--on", where, *more)]
    log = (runs.parent / f"{runs.name}.log").open("a")
    return subprocess.Popen(
        command, env={**environment(), **variables}, stdout=log, stderr=log, text=True
    )


def said(runs):
    return (runs.parent / f"{runs.name}.log").read_text()


def wait_for(pattern, folder, process):
    until = time.monotonic() + LIMIT
    while not any(folder.glob(pattern)):
        assert process.poll() is None, f"ended before {pattern}"
        assert time.monotonic() < until, f"no {pattern}"
        time.sleep(0.01)


def holders(run):
    """Ids of the processes that say they work on a stage."""
    found = {}
    for path in run.glob("stages/.partial-*/checkpoints/lease.json"):
        with suppress(OSError, ValueError):
            found[path.parent.parent.name] = json.loads(path.read_bytes())["pid"]
    return found


def kill(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def assert_same(bench, runs):
    assert outcome(runs / "tiny") == outcome(bench.finished)
    assert store.verify(runs / "tiny") == []


def test_two_processes_one_of_them_killed_give_the_run_of_one(bench, tmp_path):
    runs = tmp_path / "two"
    process = start(bench, runs, "local:2")
    wait_for("tiny/stages/.partial-seed0.finetune*/checkpoints/step-*", runs, process)
    kill(holders(runs / "tiny").popitem()[1])
    assert process.wait(LIMIT) == 0, said(runs)
    assert "a worker died at" in said(runs)
    assert_same(bench, runs)
    logs = {path.name for path in (runs / "tiny" / "logs").iterdir()}
    assert logs == {"local-0.log", "local-1.log", "times.jsonl"}
    told = in_own_process("status", str(runs / "tiny"))
    assert "14 of 14 stages done, 0 running, 0 waiting" in told.stdout


@pytest.mark.slow
def test_stopped_its_workers_write_checkpoints_and_the_next_run_goes_on(bench, tmp_path):
    runs = tmp_path / "two"
    process = start(bench, runs, "local:2")
    wait_for("tiny/stages/.partial-seed0.finetune*/checkpoints/step-*", runs, process)
    workers = set(holders(runs / "tiny").values())
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130, said(runs)
    assert "--on local:2" in said(runs)  # the command that continues
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
    told = in_own_process("status", str(runs / "tiny"))
    assert "nobody works on it; it continues from its checkpoint" in told.stdout
    assert bench.run(runs).code == 0  # in one process
    assert_same(bench, runs)


@pytest.mark.slow
def test_fifty_kills_of_coordinator_and_workers_change_nothing(bench, tmp_path):
    """As many runs as fifty kills take, each from nothing to its end."""
    draw, told, number = random.Random(0), Counter(), 0
    while told.total() < KILLS:
        runs, number = tmp_path / f"two{number}", number + 1
        told += killed_at_random(bench, runs, draw, KILLS - told.total())
        assert_same(bench, runs)
    print(f"{number} runs, killed: {dict(told)}")


def killed_at_random(bench, runs, draw, most):
    """Start a run until it ends, killing coordinator, worker or both at random; count the kills."""
    told = Counter()
    while True:
        process = start(bench, runs, "local:2")
        while process.poll() is None:
            next_one = time.monotonic() + draw.uniform(0.5, 6.0)
            while process.poll() is None and (told.total() >= most or time.monotonic() < next_one):
                time.sleep(0.02)
            if process.poll() is None:
                told[kill_one(process, [*holders(runs / "tiny").values()], draw)] += 1
        if process.returncode == 0:
            return told
        # Killed, or given up after the third worker that died at one stage.
        assert process.returncode == -signal.SIGKILL or "workers died at this" in said(runs)


def kill_one(process, workers, draw):
    chosen = draw.choice([process.pid, *workers])
    kill(chosen)
    if chosen != process.pid and draw.random() < 0.7:
        return "worker"
    kill(process.pid)
    process.wait(LIMIT)
    return "coordinator" if chosen == process.pid else "both"


def test_an_error_in_a_worker_is_the_runs_own(bench, tmp_path):
    runs = tmp_path / "two"
    process = start(
        bench, runs, "local:2", "--set", "model.revision=main", "--set", "model.source=no/such"
    )
    assert process.wait(LIMIT) != 0
    assert "Traceback" not in said(runs)


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("killed", flush=True)
"""


@pytest.mark.slow
def test_three_raylets_one_of_them_killed_give_the_run_of_one(bench, tmp_path):
    pytest.importorskip("ray", reason="needs the extra `ray`")
    runs = tmp_path / "ray"
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env={**environment(), "RAY_USAGE_STATS_ENABLED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        address = cluster.stdout.readline().strip()
        process = start(bench, runs, "ray", RAY_ADDRESS=address)
        wait_for("tiny/stages/.partial-seed0.finetune*/checkpoints/step-*", runs, process)
        cluster.stdin.write("kill\n")
        cluster.stdin.flush()
        assert cluster.stdout.readline() == "killed\n"
        assert process.wait(LIMIT) == 0, said(runs)
        assert_same(bench, runs)
    finally:
        cluster.stdin.close()
        cluster.terminate()
        cluster.wait(60)
