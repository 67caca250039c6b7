"""kill -9 at every moment of a stage: nothing finished is lost, nothing half is believed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pulse_unlearn import store
from pulse_unlearn.store.leases import CLAIM, myself
from pulse_unlearn.store.stages import sweep
from store_cases import FILES, contents, fill, inputs, key, killed_at

STEPS = (10, 20, 30)


def work(run: Path) -> None:
    """A stage from start to end: resume, checkpoint now and then, publish, index."""
    runs = store.Store(run)
    with store.RunLock(run), runs.stage_lock(key()):
        if runs.find(key()) is None:
            partial = runs.partial(key())
            found = store.latest(partial / "checkpoints", warn=unexpected)
            state = found.path.joinpath("state").read_bytes() if found else b"0"
            for step in STEPS:
                if found is None or step > found.step:
                    state += b",%d" % step
                    store.save(partial / "checkpoints", step, saver(state))
            fill(partial, {**FILES, "state": state})
            runs.publish(key(), **inputs())
        runs.check(key())
        store.write_text(run / "report.html", "<p>")
        store.write_index(run)


def saver(state: bytes):
    return lambda place: fill(place, {"state": state})


def unexpected(warning: str) -> None:
    raise AssertionError(f"a kill damaged a checkpoint: {warning}")


def test_killed_before_every_touch_of_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    work(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    kills = 0
    best = 0  # most steps a kill has left behind, as seen by the next process
    for moment in range(1, 2000):
        run = tmp_path / str(moment)
        if not killed_at(moment, lambda run=run: work(run)):
            break
        kills += 1
        runs = store.Store(run)
        # What is there before anybody tidies must be right already: readers need no lock.
        found = runs.find(key())
        if found is None:
            here = run / "stages" / f".partial-finetuned.ga-{key().fingerprint[:8]}"
            newest = store.latest(here / "checkpoints", warn=unexpected)
            step = newest.step if newest else 0
            assert step >= best, "a later kill lost an older checkpoint"
            best = step
        else:
            runs.check(key())
            best = 99
        work(run)
        assert contents(run) == expected
        assert store.verify(run) == []
    assert kills > 100
    assert best == 99


def test_killed_again_and_again_in_one_run(tmp_path, monkeypatch):
    """The recovery is killed too; each life gets a little further than the last."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    work(tmp_path / "whole")
    run = tmp_path / "run"
    draw = random.Random("crash")
    for _ in range(60):
        if not killed_at(draw.randint(1, 90), lambda: work(run)):
            break
    work(run)
    assert contents(run) == contents(tmp_path / "whole")


def test_sweep_keeps_the_work_and_finishes_the_deletion(tmp_path):
    runs = store.Store(tmp_path)
    fill(
        runs.partial(key()),
        {"checkpoints/step-00000010/state": b"1", "checkpoints/.writing-1": b""},
    )
    fill(tmp_path, {"figures/.writing-2/x": b"", ".writing-3": b""})
    done = key(2, "other", 0.2)
    fill(runs.partial(done))
    final = runs.publish(done, **inputs(0.2))
    fill(final, {"checkpoints/step-00000010/state": b"left by a kill"})
    runs.check(done)  # scratch does not make a stage bad
    sweep(tmp_path)
    assert set(contents(final)) == {*FILES, "manifest.json"}
    assert contents(tmp_path / "figures") == {}
    with runs.stage_lock(key()):
        assert set(contents(runs.partial(key()))) == {
            "checkpoints/lease.json",
            "checkpoints/step-00000010/state",
        }
    assert not (tmp_path / ".writing-3").exists()


def test_sweep_takes_away_a_claim_that_could_not_be_removed(tmp_path):
    """Mutation: `sweep` leaves it: a stage that is published is claimed by nobody again."""
    runs = store.Store(tmp_path)
    fill(runs.partial(key()))
    rest = runs.publish(key(), **inputs()).name.partition("-")[2]
    ticket = tmp_path / "stages" / f"{CLAIM}{rest}"
    store.write_json(ticket, myself())
    with runs.stage_lock(key()):
        store.write_json(ticket, myself())
        sweep(tmp_path)
        assert ticket.exists(), "somebody works on it"
    sweep(tmp_path)
    assert not ticket.exists()
    assert store.verify(tmp_path) == []


LOOP = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from pulse_unlearn import store
from store_cases import fill, inputs, key

run = Path(sys.argv[1])
with store.RunLock(run):
    print("started", flush=True)
    runs = store.Store(run)
    for number in range(10_000):
        rate = float(number)
        stage = key(number, "loop", rate)
        if runs.find(stage) is None:
            partial = runs.partial(stage)
            for step in (1, 2, 3):
                write = lambda place: fill(place, {"state": b"%d" % step * 5000})
                store.save(partial / "checkpoints", step, write)
            fill(partial)
            runs.publish(stage, **inputs(rate))
            print(number, flush=True)
"""


def test_a_real_process_killed_at_random_moments(tmp_path):
    """With real flushing and a real kill, between the touches of the disk as well."""
    draw = random.Random(7)
    run = tmp_path / "run"
    told = -1
    for _ in range(6):
        command = [sys.executable, "-c", LOOP, str(run), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "started\n"
            time.sleep(draw.uniform(0.01, 0.3))
            process.send_signal(signal.SIGKILL)
            lines = process.stdout.read().splitlines()
        told = max([told, *map(int, lines)])
        assert store.verify(run) == []
        for number in range(told + 1):
            stage = key(number, "loop", float(number))
            assert store.Store(run).find(stage) is not None, "a finished stage was lost"
        for partial in (run / "stages").glob(".partial-*"):
            store.latest(partial / "checkpoints", warn=unexpected)
    if told < 1:
        pytest.skip("the machine is too slow to finish two stages")
