"""What the store's tests share: a small run, its bytes, and processes that are killed."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from pulse_unlearn import store
from pulse_unlearn.records import RESULT_COLUMNS

KIND = "finetune"
DATA = {"people": "ab" * 32}
FILES = {"train.jsonl": b'{"step": 1}\n', "adapter/weights.bin": bytes(range(256)) * 5}


def inputs(rate: float = 0.1, parents: tuple[str, ...] = ()) -> dict[str, object]:
    return {"kind": KIND, "settings": {"rate": rate}, "data": DATA, "parents": parents}


def key(number: int = 1, name: str = "finetuned/ga", rate: float = 0.1) -> store.StageKey:
    digest = store.fingerprint(KIND, {"rate": rate}, data=DATA, parents=())
    return store.StageKey(number, name, digest)


def fill(folder: Path, files: dict[str, bytes] = FILES) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def published(run: Path, stage: store.StageKey | None = None, rate: float = 0.1) -> Path:
    stage = stage or key(rate=rate)
    run.mkdir(exist_ok=True)
    fill(store.Store(run).partial(stage))
    return store.Store(run).publish(stage, **inputs(rate))


def finished_run(run: Path) -> Path:
    """A run with two stages, results, a report, a figure and an index."""
    published(run)
    published(run, key(2, "finetuned/npo", 0.2), rate=0.2)
    row = "finetuned,ga,llm,0,1,plain,forget,all,accuracy,0.25,0.1,0.4,20,5,"
    store.write_text(run / "results.csv", f"{','.join(RESULT_COLUMNS)}\n{row}\n")
    store.write_json(run / "results.json", {"version": 4, "share": 0.25})
    store.write_text(run / "report.html", "<!doctype html><p>25.0 %")
    (run / "figures").mkdir()
    store.write_text(run / "figures" / "one.svg", "<svg/>")
    store.write_index(run)
    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder and its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def full_at(call: int) -> Callable[[int], None]:
    """A stand-in for `os.fsync` that finds the disk full at its `call`-th call, and only then."""
    calls = 0

    def fsync(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fsync


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Run `work` in a forked process killed with -9 before its `step`-th touch of the disk.

    Audit events see every open, rename, removal and new folder, whoever makes them, and fsync is
    counted too. Returns whether it was killed; False means that it ended before.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _kill_before(step)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the work itself failed"
    return False


def _kill_before(step: int) -> None:
    seen = 0

    def count(event: str = "os.fsync", _: object = None) -> None:
        nonlocal seen
        if event == "open" or event.startswith(("os.", "shutil.")):
            if event == "os.kill":
                return
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    # What a kill leaves does not depend on flushing, and 500 runs of it take too long.
    os.fsync = lambda _: count()
    sys.addaudithook(count)
