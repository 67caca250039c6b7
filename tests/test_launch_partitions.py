"""Ray on machines of their own network, one of which is cut off, falls asleep, or was the head."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress

import pytest

from partition_cases import PORT, RUNS_OUT_AFTER, Network, obstacle, wait_until
from pipeline_cases import outcome
from pulse_unlearn import store

pytestmark = pytest.mark.slow  # three raylets, a minute and more each
PULSE = [sys.executable, "-c", "from pulse_unlearn.cli import main; main()"]
FINETUNE = "seed0.finetune"


@pytest.fixture
def network(tmp_path):
    pytest.importorskip("ray", reason="needs the extra `ray`")
    if why := obstacle():
        pytest.skip(why)
    with Network(tmp_path, 3) as network:
        yield network


class Run:
    """`pulse run --on ray`, started on one of the machines."""

    def __init__(self, network, bench, runs):
        self.network, self.bench, self.folder = network, bench, runs / "tiny"
        self.argv = [*PULSE, *bench.command(runs, "--on", "ray")]

    def start(self, number, *, head=1):
        address = f"{self.network.address(head)}:{PORT}"
        return self.network.start(number, *self.argv, RAY_ADDRESS=address)

    def said(self, number):
        return self.network.log(number).read_text()

    def holder(self):
        """The machine and process that fine-tune and have written a checkpoint."""
        for path in self.folder.glob(f"stages/.partial-{FINETUNE}*/checkpoints/lease.json"):
            with suppress(OSError, ValueError):
                told = json.loads(path.read_bytes())
                if any(path.parent.glob("step-*")):
                    return self.network.number(told["host"]), told["pid"]
        return None

    def is_complete(self):
        return any(self.folder.glob(f"stages/[0-9]*-{FINETUNE}-*/manifest.json"))

    def of_workers(self, number):
        logs = self.folder.glob(f"logs/ray-{self.network.name(number)}-*.log")
        return "".join(path.read_text() for path in logs)

    def assert_as_by_one(self):
        """Everything is there, as one process left it, and no stage was computed a second time."""
        assert outcome(self.folder) == outcome(self.bench.finished)
        assert store.verify(self.folder) == []
        assert not list(self.folder.glob("stages/.partial-*"))
        ended = Counter(
            line.split("] ", 1)[1].split(": done in")[0]
            for path in self.folder.glob("logs/ray-*.log")
            for line in path.read_text().splitlines()
            if ": done in" in line
        )
        planned = json.loads((self.folder / "plan.json").read_bytes())["stages"]
        assert ended == {one["name"]: 1 for one in planned}


@pytest.fixture
def held(network, bench, tmp_path):
    """A run whose fine-tuning is under way on a machine that is not the head, and stays there."""
    network.raylet(1, head=1, cpus=0)
    wait_until(lambda: network.is_up(1), "a head")
    for number in (2, 3):
        network.raylet(number, head=1)
    wait_until(lambda: network.is_up(2) and network.is_up(3), "raylets")
    (network.hold / "all").touch()
    return Run(network, bench, tmp_path / "runs")


def until_at_work(run, process):
    wait_until(lambda: process.poll() is not None or run.holder(), "a fine-tuning")
    assert process.poll() is None, run.said(1)
    number, pid = run.holder()
    (run.network.hold / run.network.name(number)).touch()
    return number, pid


def test_a_machine_asleep_and_cut_off_past_its_lease_neither_publishes_nor_counts(held, network):
    process = held.start(1)
    number, pid = until_at_work(held, process)
    network.cut(number)
    network.send(number, signal.SIGSTOP)
    (network.hold / "all").unlink()
    wait_until(lambda: process.poll() is not None or held.is_complete(), "the others")
    assert "a worker died at seed0/finetune" in held.said(1)
    # Its worker wakes up before its raylet, which would end it, knows better.
    (network.hold / network.name(number)).unlink()
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: "StoreError" in held.of_workers(number), "the fence")
    network.mend(number)
    network.send(number, signal.SIGCONT)
    assert process.wait(180) == 0, held.said(1)
    held.assert_as_by_one()


def test_a_machine_cut_off_from_ray_alone_keeps_its_stage(held, network):
    """It renews its lease on the disk, so nobody takes the stage, and what it publishes counts."""
    process = held.start(1)
    number, pid = until_at_work(held, process)
    network.cut(number)
    (network.hold / "all").unlink()
    until = time.monotonic() + 3 * RUNS_OUT_AFTER
    while time.monotonic() < until:
        assert held.holder() == (number, pid)
        time.sleep(0.1)
    (network.hold / network.name(number)).unlink()
    wait_until(held.is_complete, "the machine that was cut off")
    assert process.wait(240) == 0, held.said(1)
    network.mend(number)
    held.assert_as_by_one()
    assert "seed0/finetune: done" in held.of_workers(number)


def test_a_lost_head_ends_the_run_and_the_same_command_goes_on_with_another(held, network):
    process = held.start(2)
    wait_until(lambda: process.poll() is not None or held.holder(), "a fine-tuning")
    assert process.poll() is None, held.said(2)
    network.send(1, signal.SIGKILL)
    assert process.wait(120) == 1, held.said(2)  # Ray ends the program
    assert "GCS may have been killed" in held.said(2)
    wait_until(lambda: not (network.processes(2) or network.processes(3)), "the rest to end")
    assert held.holder()
    (network.hold / "all").unlink()
    network.raylet(3, head=3)
    wait_until(lambda: network.is_up(3, times=2), "a new head")
    network.raylet(2, head=3)
    wait_until(lambda: network.is_up(2, times=2), "a raylet")
    assert held.start(2, head=3).wait(240) == 0, held.said(2)
    held.assert_as_by_one()
