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

HOLD = """
import sys, time
from pathlib import Path
from pulse_unlearn import store
run = Path(sys.argv[1])
with store.run_lock(run):
    print("held", flush=True)
    time.sleep(60)
"""

TRY = """
import sys
from pathlib import Path
from pulse_unlearn import store
from pulse_unlearn.errors import RunLocked
run = Path(sys.argv[1])
try:
    with store.run_lock(run):
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


def attempt(run: Path) -> str:
    answer, _ = started(TRY, str(run)).communicate()
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
    with store.run_lock(tmp_path):
        with pytest.raises(RunLocked, match=f"process {os.getpid()} "), store.run_lock(tmp_path):
            pass
        # The failed attempt must not have let go of the lock of the first.
        assert "another process" in attempt(tmp_path)
    assert attempt(tmp_path) == "free\n"


def test_an_error_inside_frees_it(tmp_path):
    run = tmp_path / "deep" / "run"
    for _ in range(2):
        with pytest.raises(KeyError), store.run_lock(run):
            raise KeyError
    assert not (run / HOLDER).exists()


def test_a_failure_while_entering_frees_it(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(StoreError, match="No space left"), store.run_lock(tmp_path):
            pass
    assert attempt(tmp_path) == "free\n"


def test_a_run_folder_that_is_a_file_is_a_typed_error(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(StoreError, match="cannot use the run folder"):
        store.run_lock(tmp_path / "run").__enter__()


def test_two_runs_do_not_disturb_each_other(tmp_path, holder):
    assert attempt(tmp_path / "other") == "free\n"
    assert holder.poll() is None
