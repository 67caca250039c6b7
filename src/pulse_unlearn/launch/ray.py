"""Workers on a Ray cluster: the machines are Ray's business, what is done is the store's."""

from __future__ import annotations

import logging
import os
import socket
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from pulse_unlearn.errors import ConfigError, Problem, StoreError
from pulse_unlearn.launch.devices import Fleet, Machine, this_machine
from pulse_unlearn.launch.engines import Job, Outcome, WorkerLost

_START_UP = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
"""Nothing is reported anywhere; a cold machine may take its time to start."""
_KNOCKS_FOR = 5.0
_ANSWERS_WITHIN = 60.0
"""Seconds that machines have to say what they have."""


class RayEngine:
    """A stage is a Ray task with one GPU, or one core where the cluster has no GPU."""

    def __init__(self, job: Job, address: str | None) -> None:
        """Join the cluster at an address, or `RAY_ADDRESS`, or start one on this machine.

        Raises ConfigError if Ray is not installed, and StoreError if no cluster answers.
        """
        for name, value in _START_UP.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ConfigError(
                Problem("needs Ray", "--on ray", fix="pip install 'pulse-unlearn[ray]'")
            ) from error
        self._ray = ray
        self._mine = not ray.is_initialized()
        if address is None and "RAY_ADDRESS" not in os.environ and not _finds_a_cluster():
            address = "local"
        if self._mine:
            try:
                ray.init(
                    address=address,
                    include_dashboard=False if address in (None, "local") else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=False,
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                where = address or os.environ.get("RAY_ADDRESS", "this machine")
                raise StoreError(
                    Problem("no Ray cluster answers", where, got=str(error))
                ) from error
        self._gpu = self._resources().get("GPU", 0) > 0
        self._task = ray.remote(
            num_gpus=1 if self._gpu else 0, num_cpus=1, max_retries=0, max_calls=0
        )(_carry_out)
        self._job = ray.put(job)
        self._refs: dict[Future[Outcome], Any] = {}

    @property
    def slots(self) -> int:
        """The GPUs, or cores, of the machines that are there now."""
        found = self._resources().get("GPU" if self._gpu else "CPU", 1)
        return max(int(found), 1)

    def fleet(self) -> Fleet:
        """Ask each machine of the cluster what it has; those that do not answer are left out."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask = self._ray.remote(num_cpus=0)(_look)
        nodes: list[dict[str, Any]] = self._ray.nodes()  # type: ignore[no-untyped-call]
        asked = []
        for node in nodes:
            slots = int(node["Resources"].get("GPU" if self._gpu else "CPU", 0))
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            if slots and node["Alive"]:
                asked.append(ask.options(scheduling_strategy=here).remote(slots, self._gpu))
        machines: list[Machine] = []
        if not asked:
            return Fleet(())
        told, _ = self._ray.wait(asked, num_returns=len(asked), timeout=_ANSWERS_WITHIN)
        for one in told:
            with suppress(self._ray.exceptions.RayError):  # it went away in this moment
                machines.append(self._ray.get(one))
        return Fleet(tuple(machines))

    def _resources(self) -> dict[str, float]:
        found: dict[str, float] = self._ray.cluster_resources()  # type: ignore[no-untyped-call]
        return found

    def start(self, stage: str, fingerprint: str) -> Future[Outcome]:
        """Hand a stage to Ray, which waits for a free machine; the future outlives a dead one."""
        reference = self._task.remote(self._job, stage, fingerprint)
        told: Future[Outcome] = Future()
        told.set_running_or_notify_cancel()
        reference.future().add_done_callback(lambda found: self._tell(found, told))
        self._refs[told] = reference
        return told

    def stop(self, *, now: bool = False) -> None:
        """Interrupt the tasks; a stage then writes a checkpoint and comes back."""
        for future, reference in self._refs.items():
            if not future.done():
                self._ray.cancel(reference, force=now)

    def close(self) -> None:
        """Leave the cluster, which ends if it was started for this run."""
        self._refs.clear()
        if self._mine:
            self._ray.shutdown()

    def _tell(self, found: Future[Outcome], told: Future[Outcome]) -> None:
        """Pass on how a task ended; what Ray says of its own machinery is a lost worker."""
        error = found.exception()
        if error is None:
            told.set_result(found.result())
        elif isinstance(error, self._ray.exceptions.RayTaskError):
            told.set_exception(error)  # a fault of ours: it would come again
        else:
            lost = WorkerLost(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            told.set_exception(lost)


def _finds_a_cluster() -> bool:
    """Tell whether one runs on this machine; of one that was killed a note stays behind.

    Ray would ask that one for minutes.
    """
    noted = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    try:
        host, _, port = noted.read_text(encoding="ascii").strip().rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCKS_FOR):
            return True
    except (OSError, ValueError, OverflowError):
        return False


_workers: dict[Job, Any] = {}
"""The worker of this process, which Ray gives one task after another."""


def _carry_out(job: Job, stage: str, fingerprint: str) -> Outcome:
    import platform

    from pulse_unlearn.launch.worker import Worker
    from pulse_unlearn.pipeline.signals import stop_on_signals

    with stop_on_signals() as stop:
        if job not in _workers:
            _workers.clear()
            _workers[job] = Worker(job, f"ray-{platform.node()}-{os.getpid()}")
        outcome: Outcome = _workers[job].carry_out(stage, fingerprint, stop)
        return outcome


def _look(workers: int, gpu: bool) -> Machine:
    if gpu:  # which Ray hides from a task that takes none
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return this_machine(workers)
