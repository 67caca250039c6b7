"""Workers that are processes of this machine, each with its share of cores and a GPU if any."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pulse_unlearn.errors import Interrupted
from pulse_unlearn.launch.devices import Fleet, this_machine, visible_gpus
from pulse_unlearn.launch.engines import Job, Outcome
from pulse_unlearn.pipeline.signals import SIGNALS, StopRequest

if TYPE_CHECKING:
    from pulse_unlearn.launch.worker import Worker

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(slots=True)
class _Slot:
    """One worker at a time: a pool of one process, so that its death is its own."""

    number: int
    pool: ProcessPoolExecutor
    pid: int
    last: Future[Outcome] | None = None

    @property
    def free(self) -> bool:
        return self.last is None or self.last.done()

    @property
    def spent(self) -> bool:
        """Tell whether the process died, or was asked to end."""
        if self.last is None or not self.last.done():
            return False
        error = self.last.exception()
        return error is not None or self.last.result().error is not None


class LocalEngine:
    """N processes, each of which keeps its models from stage to stage."""

    def __init__(self, job: Job, workers: int) -> None:
        self._job, self._count = job, workers
        self._slots: list[_Slot] = []

    @property
    def slots(self) -> int:
        """The number of processes."""
        return self._count

    def fleet(self) -> Fleet:
        """Return this machine."""
        return Fleet((this_machine(self._count),))

    def start(self, stage: str, fingerprint: str) -> Future[Outcome]:
        """Start a stage in a free process; a process that died is replaced by another."""
        slot = next((one for one in self._slots if one.free), None)
        if slot is not None and slot.spent:
            slot.pool.shutdown(wait=False, cancel_futures=True)
            self._slots.remove(slot)
            slot = self._open(slot.number)
        if slot is None:
            slot = self._open(len(self._slots))
        slot.last = slot.pool.submit(_carry_out, stage, fingerprint)
        return slot.last

    def stop(self, *, now: bool = False) -> None:
        """Send each busy process SIGTERM: it writes a checkpoint, and the stage comes back."""
        for slot in self._slots:
            if not slot.free:
                with suppress(ProcessLookupError):
                    os.kill(slot.pid, signal.SIGKILL if now else signal.SIGTERM)

    def close(self) -> None:
        """End the processes, which are idle."""
        for slot in self._slots:
            slot.pool.shutdown(wait=True, cancel_futures=True)
        self._slots.clear()

    def _open(self, number: int) -> _Slot:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = max(1, (cores or 1) // self._count)
        pool = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self._job, number, threads),
        )
        slot = _Slot(number, pool, pool.submit(os.getpid).result())
        self._slots.append(slot)
        return slot


_stop = StopRequest()
_idle = threading.Event()
_idle.set()
_workers: list[Worker] = []
"""The one worker of this process, once it has begun."""


def _begin(job: Job, number: int, threads: int) -> None:
    """Make this process a worker, before torch is imported."""
    for name in _THREADS:
        os.environ.setdefault(name, str(threads))
    _take_device(number)
    for one in SIGNALS:
        signal.signal(one, _ask_to_stop)
    # Ctrl-C reaches all processes of a terminal; the coordinator passes it on as SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from pulse_unlearn.launch.worker import Worker

    worker = Worker(job, f"local-{number}")
    _send_output_to(worker.log)
    _workers.append(worker)


def _ask_to_stop(number: int, _frame: FrameType | None) -> None:
    """Note a signal; a second one, which a scheduler may send to all processes, changes nothing."""
    _stop.signal = number


def _carry_out(stage: str, fingerprint: str) -> Outcome:
    _idle.clear()
    try:
        return _workers[0].carry_out(stage, fingerprint, _stop)
    finally:
        _idle.set()


def _take_device(number: int) -> None:
    """Show this process one of the GPUs that the run may use, in turn."""
    if devices := visible_gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]


def _end_with_parent() -> None:
    """Ask the work to stop when the coordinator is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        _stop.signal = signal.SIGTERM
        _idle.wait()
        os._exit(Interrupted.exit_code)


def _send_output_to(log: Path) -> None:
    """Append what libraries print to the worker's log; the terminal belongs to the coordinator."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
