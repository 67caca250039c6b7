"""One process at a time, and the lock is free when its holder dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pulse_unlearn import store
from pulse_unlearn.errors import RunLocked, StoreError
from pulse_unlearn.store.stages import HOLDER, LOCK
from store_cases import contents, fill, inputs, key, published

HOLD = """
import sys, time
from pathlib import Path
from pulse_unlearn import store
from store_cases import key
run = Path(sys.argv[1])
lock = store.Store(run).stage_lock(key()) if len(sys.argv) > 2 else store.RunLock(run)
with lock:
    print("held", flush=True)
    time.sleep(60)
"""

TRY = """
import sys
from pathlib import Path
from pulse_unlearn import store
from pulse_unlearn.errors import RunLocked
from store_cases import key
run = Path(sys.argv[1])
lock = store.Store(run).stage_lock(key()) if len(sys.argv) > 2 else store.RunLock(run)
try:
    with lock:
        print("free", flush=True)
        sys.stdin.read()
except RunLocked as error:
    print(error)
"""


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.fixture
def holder(tmp_path):
    with started(HOLD, str(tmp_path)) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def stage_holder(tmp_path):
    fill(store.Store(tmp_path).partial(key()), {"checkpoints/step-1": b"1", "log": b""})
    with started(HOLD, str(tmp_path), "stage") as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def attempt(run: Path, *stage: str) -> str:
    answer, _ = started(TRY, str(run), *stage).communicate()
    return answer


def test_the_second_process_is_told_who_the_first_is(tmp_path, holder):
    answer = attempt(tmp_path)
    assert f"process {holder.pid} on {socket.gethostname()}, started 20" in answer
    assert str(tmp_path) in answer
    assert holder.poll() is None


def test_the_lock_is_free_after_kill_9(tmp_path, holder):
    half = tmp_path / ".writing-0123"
    half.write_bytes(b"torn")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / HOLDER).read_text())["pid"] == holder.pid
    assert attempt(tmp_path) == "free\n"
    assert not half.exists()


def test_the_holder_file_is_not_the_lock(tmp_path, holder):
    (tmp_path / HOLDER).write_text("not json")
    assert "not yet said who it is" in attempt(tmp_path)
    (tmp_path / HOLDER).unlink()
    assert "not yet said who it is" in attempt(tmp_path)
    assert holder.poll() is None


def test_a_stale_holder_file_locks_nothing(tmp_path):
    (tmp_path / HOLDER).write_text('{"pid": 1, "host": "x", "started": "y"}')
    (tmp_path / LOCK).touch()
    assert attempt(tmp_path) == "free\n"


def test_the_same_process_does_not_get_it_twice(tmp_path):
    with store.RunLock(tmp_path):
        with pytest.raises(RunLocked, match=f"process {os.getpid()} "), store.RunLock(tmp_path):
            pass
        # The failed attempt must not have let go of the lock of the first.
        assert "another process" in attempt(tmp_path)
    assert attempt(tmp_path) == "free\n"


def test_one_object_serves_again_and_an_error_inside_frees_it(tmp_path):
    lock = store.RunLock(tmp_path / "deep" / "run")
    for _ in range(2):
        with pytest.raises(KeyError), lock:
            raise KeyError
    assert not (lock.run / HOLDER).exists()


def test_a_failure_while_entering_frees_it(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(StoreError, match="No space left"), store.RunLock(tmp_path):
            pass
    assert attempt(tmp_path) == "free\n"


def test_a_run_folder_that_is_a_file_is_a_typed_error(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(StoreError, match="cannot use the run folder"):
        store.RunLock(tmp_path / "run").__enter__()


def test_two_runs_do_not_disturb_each_other(tmp_path, holder):
    assert attempt(tmp_path / "other") == "free\n"
    assert holder.poll() is None


def test_the_second_process_is_told_who_works_on_the_stage(tmp_path, stage_holder):
    answer = attempt(tmp_path, "stage")
    assert "another process is working on this stage" in answer
    assert f"process {stage_holder.pid} on {socket.gethostname()}, started 20" in answer
    assert str(store.Store(tmp_path).partial(key())) in answer
    assert stage_holder.poll() is None


def test_a_stage_is_free_after_kill_9_and_its_checkpoints_stay(tmp_path, stage_holder):
    partial = store.Store(tmp_path).partial(key())
    fill(partial, {".writing-0123/half": b"torn", "checkpoints/.writing-4567": b"torn"})
    stage_holder.send_signal(signal.SIGKILL)
    stage_holder.wait()
    assert attempt(tmp_path, "stage") == "free\n"
    partial = store.Store(tmp_path).partial(key())  # under the term of who tried
    assert contents(partial) == {"checkpoints/step-1": b"1", "log": b""}


def test_only_one_of_many_processes_gets_a_stage(tmp_path):
    processes = [started(TRY, str(tmp_path), "stage") for _ in range(4)]
    answers = [process.stdout.readline() for process in processes]
    assert answers.count("free\n") == 1
    for process in processes:
        process.communicate()


def test_another_stage_and_the_run_are_free(tmp_path, stage_holder):
    runs = store.Store(tmp_path)
    other = key(2, "other", 0.2)
    with runs.stage_lock(other), store.RunLock(tmp_path):
        fill(runs.partial(other))
        runs.publish(other, **inputs(0.2))
    assert runs.find(other)
    assert stage_holder.poll() is None


def test_who_tidies_the_run_leaves_held_stages_alone(tmp_path, stage_holder):
    runs = store.Store(tmp_path)
    final = published(tmp_path)
    fill(final, {"checkpoints/step-1": b"being deleted by the holder"})
    fill(runs.partial(key()), {".writing-0123": b"by the holder"})
    with store.RunLock(tmp_path):
        pass
    assert (runs.partial(key()) / ".writing-0123").exists()
    assert (final / "checkpoints").exists()
    stage_holder.kill()
    stage_holder.wait()
    with store.RunLock(tmp_path):
        pass
    assert not (final / "checkpoints").exists()


def test_the_same_process_does_not_get_a_stage_twice(tmp_path):
    runs = store.Store(tmp_path)
    with runs.stage_lock(key()):
        with pytest.raises(RunLocked, match=f"process {os.getpid()} "), runs.stage_lock(key()):
            pass
        assert "another process" in attempt(tmp_path, "stage")
    assert attempt(tmp_path, "stage") == "free\n"


def test_a_run_that_vanished_is_not_made_again_by_a_stage(tmp_path):
    runs = store.Store(tmp_path / "gone")
    with pytest.raises(StoreError, match="cannot take the lock"), runs.stage_lock(key()):
        pass
    assert not runs.run.exists()
