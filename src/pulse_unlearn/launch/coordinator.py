"""Which stage is next, and what comes of each: the plan as a graph, whatever carries it out."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Literal

from pulse_unlearn.errors import Interrupted, PluginError, Problem, RunLocked, StoreError
from pulse_unlearn.launch.engines import Engine, Outcome, WorkerLost
from pulse_unlearn.launch.schedule import ranks_of
from pulse_unlearn.pipeline.progress import Working, working
from pulse_unlearn.pipeline.times import note_time
from pulse_unlearn.pipeline.tracking import STEPS
from pulse_unlearn.pipeline.work import Pipeline
from pulse_unlearn.scenarios import Stage

ATTEMPTS = 3
"""Workers that may die at one stage before the run stops."""
_End = Literal["computed", "reused", "skipped"]
_LOOK_EVERY = 1.0
_BUSY_FOR = 2.0
"""Seconds until a stage that another process holds is tried again."""
_ASK_STORE_EVERY = 5.0
"""Seconds; an engine may take minutes to notice that a machine is gone, or never."""


@dataclass
class Coordinator:
    """Carries a plan out on an engine: the counterpart of `Pipeline.carry_out`."""

    engine: Engine
    look_every: float = _LOOK_EVERY
    _waiting: list[tuple[float, int, str]] = field(default_factory=list)
    _running: dict[Future[Outcome], tuple[str, float]] = field(default_factory=dict)
    _later: dict[str, float] = field(default_factory=dict)
    """Stage that another process holds -> when to try again."""
    _lost: dict[str, int] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)
    """Stage -> its place in the plan, from 1."""
    _ranks: dict[str, float] = field(default_factory=dict)
    _asked: float = field(default_factory=time.monotonic)
    """When the store was last asked about stages at work."""
    _seen: set[str] = field(default_factory=set)
    """Stages at work that the store held as complete then."""
    _gone: dict[str, float] = field(default_factory=dict)
    """Stage -> when a worker that was given up had last renewed its lease."""

    def carry_out(self, pipeline: Pipeline) -> tuple[int, int]:
        """Bring every stage to completion; return how many were computed and reused.

        Raises what a worker raised, after all others were asked to stop and have; Interrupted if
        the run was asked to.
        """
        stages = {stage.name: stage for stage in pipeline.inputs.plan.stages}
        self._numbers = {name: number for number, name in enumerate(stages, start=1)}
        parents = {name: stage.parents for name, stage in stages.items()}
        self._ranks, graph = ranks_of(parents), TopologicalSorter(parents)
        graph.prepare()
        pipeline.failures.forget()
        pipeline.progress.begin(len(stages))
        counts: Counter[_End] = Counter()
        try:
            while graph.is_active():
                while ready := graph.get_ready():
                    for name in sorted(ready, key=self._numbers.__getitem__):
                        if end := self._settled(pipeline, stages[name]):
                            counts[end] += 1
                            graph.done(name)
                        else:
                            self._wait(name)
                pipeline.stop.check()
                self._start(pipeline, stages)
                for name, end in self._ended(pipeline, stages):
                    counts[end] += 1
                    graph.done(name)
        except BaseException:
            self._stop_all()
            raise
        finally:
            self.engine.close()
        return counts["computed"], counts["reused"]

    def _settled(self, pipeline: Pipeline, stage: Stage) -> _End | None:
        """Return how a stage ends that is not to be started: complete, or resting on a failure."""
        if pipeline.is_complete(stage):
            pipeline.progress.reuse(self._numbers[stage.name], stage)
            return "reused"
        if failed := pipeline.failures.skips(stage):
            pipeline.progress.warn(f"{stage.name} is skipped, since {failed} failed")
            return "skipped"
        return None

    def _wait(self, name: str) -> None:
        """Queue a stage, the longest remaining chain first."""
        heapq.heappush(self._waiting, (-self._ranks[name], self._numbers[name], name))

    def _start(self, pipeline: Pipeline, stages: Mapping[str, Stage]) -> None:
        now = time.monotonic()
        for name in [name for name, when in self._later.items() if when <= now]:
            del self._later[name]
            self._wait(name)
        while self._waiting and len(self._running) < self.engine.slots:
            *_, name = heapq.heappop(self._waiting)
            pipeline.progress.start(self._numbers[name], stages[name])
            future = self.engine.start(name, pipeline.inputs.keys[name].fingerprint)
            self._running[future] = (name, now)

    def _ended(self, pipeline: Pipeline, stages: Mapping[str, Stage]) -> list[tuple[str, _End]]:
        """Wait a moment, and return the stages that have ended, and how."""
        if not self._running:
            if self._later:
                time.sleep(min(self.look_every, _BUSY_FOR))
            return []
        done, _ = wait(self._running, timeout=self.look_every, return_when=FIRST_COMPLETED)
        pipeline.progress.working(self._at_work(pipeline))
        ended = []
        for future in [*done, *self._given_up(pipeline)]:
            name, _ = self._running.pop(future)
            if end := self._judge(pipeline, stages[name], future):
                ended.append((name, end))
        return ended

    def _given_up(self, pipeline: Pipeline) -> list[Future[Outcome]]:
        """Return, with an outcome, what stands for stages whose workers are not heard of again.

        A stage is complete once the store holds it, and lost when its lease has run out; the engine
        may say so later or never, and then it is no news.
        """
        now = time.monotonic()
        if now - self._asked < _ASK_STORE_EVERY:
            return []
        self._asked, seen, found = now, self._seen, []
        self._seen = set()
        for future, (name, since) in list(self._running.items()):
            key = pipeline.inputs.keys[name]
            instead: Future[Outcome] = Future()
            if future.done():
                continue
            if pipeline.store.find(key) is not None:
                self._seen.add(name)
                if name not in seen:
                    continue  # its worker may be about to say so
                instead.set_result(Outcome("a worker not heard of again", now - since))
            elif (last := pipeline.store.lapsed(key)) and last > self._gone.get(name, 0.0):
                self._gone[name] = last  # until the next has taken over, the lease stays as it is
                instead.set_exception(WorkerLost("its lease ran out"))
            else:
                continue
            self._running[instead] = self._running.pop(future)
            found.append(instead)
        return found

    def _judge(
        self,
        pipeline: Pipeline,
        stage: Stage,
        future: Future[Outcome],
    ) -> _End | None:
        """Return how a stage ended; None if it is to be tried again."""
        number = self._numbers[stage.name]
        try:
            outcome = future.result()
        except BrokenExecutor as broken:
            self._lost[stage.name] = self._lost.get(stage.name, 0) + 1
            if self._lost[stage.name] >= ATTEMPTS:
                raise StoreError(
                    Problem(
                        f"{ATTEMPTS} workers died at this stage",
                        stage.name,
                        got=str(broken) or type(broken).__name__,
                        fix="look into the workers' logs in the run folder; memory is the usual "
                        "cause: fewer workers, or smaller micro-batches",
                    )
                ) from broken
            pipeline.progress.warn(f"a worker died at {stage.name}, which another one continues")
            self._wait(stage.name)
            return None
        error = outcome.error
        if error is None:
            pipeline.progress.logged(stage, pipeline.folder_of(stage.name) / STEPS)
            if not outcome.computed:  # by a worker given up, which was not lost
                pipeline.progress.reuse(number, stage)
                return "reused"
            pipeline.progress.finish(number, stage, outcome.seconds)
            note_time(pipeline.run, stage.kind, stage.name, outcome.seconds, outcome.worker)
            return "computed"
        if isinstance(error, RunLocked):
            self._later[stage.name] = time.monotonic() + _BUSY_FOR
            return None
        if isinstance(error, Interrupted):  # the worker was told to leave, not the run
            pipeline.progress.warn(f"{outcome.worker} was stopped at {stage.name}")
            self._wait(stage.name)
            return None
        if isinstance(error, PluginError):
            pipeline.failures.record(stage.name, error, outcome.traceback)
            pipeline.progress.warn(f"{error}\nThe run goes on with what does not depend on it.")
            return "skipped"
        raise error

    def _at_work(self, pipeline: Pipeline) -> list[Working]:
        now = time.monotonic()
        at_work = []
        for name, since in self._running.values():
            holder = pipeline.store.holder(pipeline.inputs.keys[name]) or {}
            at_work.append(working(name, now - since, holder))
        return at_work

    def _stop_all(self) -> None:
        """Ask all workers to end, and wait until they have written their checkpoints."""
        try:
            self.engine.stop()
            wait(self._running)
        except KeyboardInterrupt:  # asked a second time
            self.engine.stop(now=True)
            raise
