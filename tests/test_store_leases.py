"""Stages held by processes that no lock of the operating system keeps apart, as on NFS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from pulse_unlearn import store
from pulse_unlearn.errors import RunLocked, StoreError
from pulse_unlearn.store import leases
from store_cases import contents, fill, inputs, key

HOUR = 3600.0


@pytest.fixture(autouse=True)
def no_flock(monkeypatch):
    """A file system without locks: the lease alone decides."""

    def missing(self, *_args, **_kwargs):
        raise NotImplementedError

    monkeypatch.setattr("pulse_unlearn.store.stages.FileLock.acquire", missing)


@contextmanager
def held_elsewhere(run, *, age=0.0, host="elsewhere"):
    """A stage that a process of another machine holds, its lease renewed `age` seconds ago."""
    there = store.Store(run)
    with there.stage_lock(key()):
        folder = there.partial(key())
        fill(folder, {"checkpoints/step-00000003/state": b"3"})
        lease = folder / "checkpoints" / "lease.json"
        lease.write_text(json.dumps({**json.loads(lease.read_bytes()), "host": host}))
        os.utime(lease, (time.time() - age,) * 2)
        yield there, folder


def test_a_fresh_lease_of_another_machine_is_respected(tmp_path):
    with held_elsewhere(tmp_path) as (there, _):
        here = store.Store(tmp_path)
        with pytest.raises(RunLocked, match=r"process \d+ on elsewhere"), here.stage_lock(key()):
            pass
        fill(there.partial(key()), {"out": b"1"})
        assert there.publish(key(), **inputs()).is_dir()


@pytest.mark.parametrize(
    ("host", "age", "ran_out"),
    [("elsewhere", 0, False), ("elsewhere", HOUR, True), ("", HOUR, False)],
)
def test_a_lease_of_another_machine_lapses_and_one_of_this_is_the_systems_to_judge(
    tmp_path, host, age, ran_out
):
    with held_elsewhere(tmp_path, age=age, host=host or leases.myself()["host"]) as (there, _):
        found = there.lapsed(key())
        assert (found is not None and found < time.time() - HOUR / 2) is ran_out
    assert there.lapsed(key()) is None  # given back


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_can_do_nothing(tmp_path):
    with held_elsewhere(tmp_path, age=HOUR) as (there, folder):
        here = store.Store(tmp_path)
        with here.stage_lock(key()):
            mine = here.partial(key())
            assert contents(mine)["checkpoints/step-00000003/state"] == b"3"
            assert not folder.exists()
            # The one before wakes up: whatever it tries, it makes no second folder.
            with pytest.raises(StoreError, match="taken over this stage"):
                there.partial(key())
            with pytest.raises(StoreError, match="taken over this stage"):
                there.publish(key(), **inputs())
            with pytest.raises(StoreError):
                there.note(key(), {"done": 1})
            with pytest.raises(StoreError):
                store.save(folder / "checkpoints", 4, lambda to: fill(to, {"state": b"4"}))
            fill(mine, {"out": b"1"})
            final = here.publish(key(), **inputs())
    assert [path.name for path in final.parent.iterdir()] == [final.name]
    assert set(contents(final)) == {"out", "manifest.json"}


@pytest.mark.parametrize("number", range(20))
def test_one_of_many_gets_a_stage_however_they_race(tmp_path, number):
    (tmp_path / "stages").mkdir()
    if number % 2:  # something to take over, and not to begin
        fill(store.Store(tmp_path).partial(key()), {"checkpoints/step-00000003/state": b"3"})
    got, together = [], threading.Barrier(4)
    finished, refused = threading.Event(), threading.Semaphore(0)

    def contend():
        mine = store.Store(tmp_path)
        together.wait()
        try:
            with mine.stage_lock(key()):
                got.append(mine.partial(key()))
                finished.wait()
        except RunLocked:
            refused.release()

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    losers = [refused.acquire(timeout=20) for _ in range(3)]
    finished.set()
    for thread in threads:
        thread.join()
    assert (losers, len(got)) == ([True] * 3, 1)


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = store.Store(tmp_path)
    with held_elsewhere(tmp_path, host=leases.myself()["host"]) as (_, folder):
        lease = folder / "checkpoints" / "lease.json"
        assert here.holder(key())["pid"] == os.getpid()
        lease.write_text(json.dumps({**json.loads(lease.read_bytes()), "pid": ended.pid}))
        assert here.holder(key()) is None
        with here.stage_lock(key()):
            assert here.partial(key()).is_dir()


def test_a_holder_at_work_renews_its_lease_and_notes_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "RENEWED_EVERY", 0.02)
    with held_elsewhere(tmp_path, age=HOUR) as (there, folder):
        until = time.monotonic() + 10
        while time.time() - (folder / "checkpoints" / "lease.json").stat().st_mtime > HOUR / 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        there.note(key(), {"done": 3, "total": 9})
        assert there.holder(key())["done"] == 3
    assert there.holder(key()) is None  # let go


def test_nothing_is_left_of_a_stage_that_was_only_looked_at(tmp_path):
    with store.Store(tmp_path).stage_lock(key()):
        pass
    assert list((tmp_path / "stages").iterdir()) == []


def test_a_process_killed_while_it_claimed_delays_others_and_does_not_stop_them(tmp_path):
    (tmp_path / "stages").mkdir()
    ticket = tmp_path / "stages" / f".claim-{key().rest}"
    ticket.write_text(json.dumps({**leases.myself(), "host": "elsewhere"}))
    here = store.Store(tmp_path)
    with pytest.raises(RunLocked, match="on elsewhere"), here.stage_lock(key()):
        pass
    os.utime(ticket, (time.time() - HOUR,) * 2)
    with here.stage_lock(key()):
        assert not ticket.exists()
    assert list((tmp_path / "stages").iterdir()) == []
