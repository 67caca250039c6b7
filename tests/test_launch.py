"""Stages side by side: the coordinator on engines that sleep, break and refuse."""

from __future__ import annotations

import heapq
import pickle
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from pulse_unlearn.errors import (
    ConfigError,
    Interrupted,
    MethodError,
    PluginError,
    Problem,
    RunLocked,
    StoreError,
)
from pulse_unlearn.launch import Coordinator, Outcome, WorkerLost, engine_of
from pulse_unlearn.launch.ray import _finds_a_cluster
from pulse_unlearn.launch.schedule import critical_path, lower_bound, makespan, ranks_of
from pulse_unlearn.pipeline.progress import Silent
from pulse_unlearn.pipeline.signals import StopRequest
from pulse_unlearn.store import StageKey

CHAIN = {"a": (), "b": ("a",), "c": ("b",), "x": (), "y": ("a", "x")}


class Failures:
    def __init__(self):
        self.missing = {}

    def forget(self):
        self.missing.clear()

    def record(self, stage, error, text):
        self.missing[stage] = text

    def skips(self, stage):
        return next((one for one in stage.parents if one in self.missing), "")


def pipeline_of(tmp_path, parents, complete=()):
    """What the coordinator asks a pipeline for, without a model or data."""
    keys = {name: StageKey(n, name, f"{n:064x}") for n, name in enumerate(parents)}
    stages = [SimpleNamespace(name=n, parents=p, kind="stage") for n, p in parents.items()]
    tmp_path.mkdir(exist_ok=True)
    return SimpleNamespace(
        inputs=SimpleNamespace(plan=SimpleNamespace(stages=stages), keys=keys),
        failures=Failures(),
        progress=Silent(),
        stop=StopRequest(),
        store=SimpleNamespace(holder=lambda _: None, find=lambda _: None, lapsed=lambda _: None),
        run=tmp_path,
        folder_of=lambda name: tmp_path / name,
        is_complete=lambda stage: stage.name in complete,
    )


class Threads:
    """An engine of threads: `act` is called with a stage's name and how often it was started."""

    def __init__(self, act, slots=2):
        self.act, self.slots = act, slots
        self.pool = ThreadPoolExecutor(slots)
        self.started, self.stopped = [], []

    def start(self, stage, fingerprint):
        assert len(fingerprint) == 64
        self.started.append(stage)
        return self.pool.submit(self._work, stage, self.started.count(stage))

    def _work(self, stage, count):
        return self.act(stage, count) or Outcome("thread", 0.0)

    def stop(self, *, now=False):
        self.stopped.append(now)

    def close(self):
        self.pool.shutdown()


def carry_out(tmp_path, act, parents=CHAIN, *, slots=2, **more):
    engine = Threads(act, slots)
    pipeline = pipeline_of(tmp_path, parents, **more)
    return engine, pipeline, Coordinator(engine, look_every=0.01).carry_out(pipeline)


def test_every_stage_runs_once_after_its_parents(tmp_path):
    order, lock = [], threading.Lock()

    def act(stage, _count):
        with lock:
            assert set(CHAIN[stage]) <= set(order)
        time.sleep(0.01)
        with lock:
            order.append(stage)

    engine, _, counts = carry_out(tmp_path, act)
    assert sorted(order) == sorted(CHAIN) == sorted(engine.started)
    assert counts == (5, 0)


def test_what_is_complete_is_not_started_and_counts_as_reused(tmp_path):
    engine, _, counts = carry_out(tmp_path, lambda *_: None, complete=("a", "b"))
    assert sorted(engine.started) == ["c", "x", "y"]
    assert counts == (3, 2)


def test_the_longest_chain_goes_first(tmp_path):
    assert ranks_of(CHAIN) == {"a": 3, "b": 2, "c": 1, "x": 2, "y": 1}
    engine, *_ = carry_out(tmp_path, lambda *_: None, slots=1)
    assert engine.started == ["a", "b", "x", "c", "y"]


def test_a_lost_workers_stage_is_started_again_and_the_third_loss_ends_the_run(tmp_path):
    def once(stage, count):
        if stage == "b" and count == 1:
            raise WorkerLost("killed")

    engine, _, counts = carry_out(tmp_path, once)
    assert (engine.started.count("b"), counts) == (2, (5, 0))

    def always(stage, _count):
        if stage == "b":
            raise WorkerLost("killed")

    with pytest.raises(StoreError, match="3 workers died at this stage"):
        carry_out(tmp_path, always)


def test_a_stage_that_another_process_holds_is_tried_later(tmp_path, monkeypatch):
    monkeypatch.setattr("pulse_unlearn.launch.coordinator._BUSY_FOR", 0.05)
    held = RunLocked(Problem("another process is working on this stage"))
    engine, _, counts = carry_out(
        tmp_path, lambda s, n: Outcome("w", 0.0, False, held) if (s, n) == ("a", 1) else None
    )
    assert (engine.started.count("a"), counts) == (2, (5, 0))


def test_a_stage_whose_lease_ran_out_is_started_again_whatever_the_engine_says(
    tmp_path, monkeypatch
):
    """The first worker at `b` is never heard of again, and the second takes a while to begin."""
    monkeypatch.setattr("pulse_unlearn.launch.coordinator._ASK_STORE_EVERY", 0.02)
    pipeline, begun = pipeline_of(tmp_path, CHAIN), threading.Event()
    pipeline.store.lapsed = lambda key: 1.0 if key.name == "b" and not begun.is_set() else None

    def act(stage, count):
        if (stage, count) == ("b", 1):
            begun.wait(10)
        elif stage == "b":
            time.sleep(0.3)
            begun.set()

    engine = Threads(act, slots=3)
    assert Coordinator(engine, look_every=0.01).carry_out(pipeline) == (5, 0)
    assert engine.started.count("b") == 2


def test_a_stage_that_is_published_is_done_without_its_workers_word(tmp_path, monkeypatch):
    monkeypatch.setattr("pulse_unlearn.launch.coordinator._ASK_STORE_EVERY", 0.05)
    pipeline, over, waited = pipeline_of(tmp_path, CHAIN), threading.Event(), []
    pipeline.store.find = lambda key: tmp_path if key.name == "b" else None

    def act(stage, _count):
        if stage == "b":
            waited.append(over.wait(10))
        if stage == "c":
            over.set()

    engine = Threads(act, slots=3)
    assert Coordinator(engine, look_every=0.01).carry_out(pipeline) == (5, 0)
    assert sorted(engine.started) == sorted(CHAIN)
    assert waited == [True]


def test_a_worker_told_to_leave_is_not_the_run(tmp_path):
    gone = Interrupted("stopped")
    engine, _, counts = carry_out(
        tmp_path, lambda s, n: Outcome("w", 0.0, False, gone) if (s, n) == ("x", 1) else None
    )
    assert (engine.started.count("x"), counts) == (2, (5, 0))


def test_a_plug_ins_failure_takes_what_rests_on_it_and_nothing_else(tmp_path):
    failed = PluginError(Problem("the plug-in p failed", got="ValueError"))
    engine, pipeline, counts = carry_out(
        tmp_path, lambda s, _: Outcome("w", 0.0, False, failed, "trace") if s == "x" else None
    )
    assert sorted(engine.started) == ["a", "b", "c", "x"]
    assert pipeline.failures.missing == {"x": "trace"}
    assert counts == (3, 0)


def test_any_other_error_stops_the_others_and_is_raised(tmp_path):
    wrong = MethodError("wrong")
    engine = Threads(lambda s, _: Outcome("w", 0.0, False, wrong) if s == "x" else None)
    with pytest.raises(MethodError, match="wrong"):
        Coordinator(engine, look_every=0.01).carry_out(pipeline_of(tmp_path, CHAIN))
    assert engine.stopped == [False]
    assert engine.pool._shutdown


def test_asked_to_stop_it_asks_the_workers_and_waits_for_them(tmp_path):
    pipeline, ended = pipeline_of(tmp_path, CHAIN), []

    def act(stage, _count):
        pipeline.stop.signal = 15
        time.sleep(0.1)
        ended.append(stage)

    engine = Threads(act)
    with pytest.raises(Interrupted):
        Coordinator(engine, look_every=0.01).carry_out(pipeline)
    assert engine.stopped == [False]
    assert sorted(ended) == ["a", "x"]


def test_errors_come_out_of_other_processes_whole():
    error = StoreError([Problem("one", "here", "got", "allowed", "fix"), Problem("two")])
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), back.problems) == (StoreError, error.problems)


@pytest.mark.parametrize("named", ["local:0", "slurm", "local:", "ray:/x", ""])
def test_unknown_places_are_refused(named):
    with pytest.raises(ConfigError, match="no such place to run on"):
        engine_of(named)
    assert engine_of("local") is None


def test_a_ray_cluster_that_was_killed_is_not_asked_for_minutes(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert not _finds_a_cluster()
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        assert _finds_a_cluster()
    assert not _finds_a_cluster()


class Simulated:
    """Workers whose stages take simulated seconds: a future is done when its time has come."""

    def __init__(self, seconds, slots):
        self.seconds, self.slots = seconds, slots
        self.now, self.busy = 0.0, []

    def start(self, stage, _fingerprint):
        future = Future()
        heapq.heappush(self.busy, (self.now + self.seconds[stage], stage, future))
        return future

    def tick(self, *_args, **_more):
        """Stand for `wait`: the clock moves to the next end."""
        self.now, _, future = heapq.heappop(self.busy)
        future.set_result(Outcome("simulated", 0.0))
        return {future}, set()

    def stop(self, *, now=False):
        raise AssertionError("nothing is to be stopped")

    def close(self):
        assert not self.busy


def leaderboard(methods=25, seeds=3):
    """A plan of about 1,500 stages: chains of five requests, each scored, from three targets."""
    parents, seconds = {}, {}

    def add(name, *of, takes):
        parents[name], seconds[name] = of, takes

    for seed in range(seeds):
        add(f"{seed}/finetune", takes=900)
        add(f"{seed}/score", f"{seed}/finetune", takes=120)
        for method in range(methods):
            slow = 1 + method % 5 / 4
            for scenario in range(4):
                add(f"{seed}/{scenario}/{method}", f"{seed}/finetune", takes=300 * slow)
                add(f"{seed}/{scenario}/{method}/s", f"{seed}/{scenario}/{method}", takes=120)
            last = f"{seed}/finetune"
            for request in range(1, 6):
                name = f"{seed}/q/{method}/{request}"
                add(name, last, takes=90 * slow)
                add(f"{name}/s", name, takes=120)
                last = name
    return parents, seconds


@pytest.mark.parametrize("workers", [8, 32, 128])
def test_1500_stages_keep_the_workers_busy(tmp_path, monkeypatch, workers):
    parents, seconds = leaderboard()
    engine = Simulated(seconds, workers)
    monkeypatch.setattr("pulse_unlearn.launch.coordinator.wait", engine.tick)
    monkeypatch.setattr("pulse_unlearn.launch.coordinator.note_time", lambda *_: None)
    began = time.process_time()
    Coordinator(engine).carry_out(pipeline_of(tmp_path, parents))
    assert time.process_time() - began < 5.0
    bound = lower_bound(parents, seconds.__getitem__, workers=workers)
    assert len(parents) > 1_300
    assert 0.95 <= bound / engine.now <= 1.0
    assert makespan(parents, seconds.__getitem__, workers=workers) == pytest.approx(
        engine.now, rel=0.02
    )


def test_bounds_of_a_graph_known_by_hand():
    seconds = {"a": 4.0, "b": 1.0, "c": 1.0, "x": 3.0, "y": 5.0}.__getitem__
    assert critical_path(CHAIN, seconds) == ["a", "y"]
    assert ranks_of(CHAIN, seconds) == {"a": 9, "b": 2, "c": 1, "x": 8, "y": 5}
    assert lower_bound(CHAIN, seconds, workers=1) == makespan(CHAIN, seconds, workers=1) == 14
    assert lower_bound(CHAIN, seconds, workers=2) == makespan(CHAIN, seconds, workers=2) == 9
    # Nothing but `a` and `x` can begin before 4: then 7 seconds of work are left for each worker.
    late = {"a": 4.0, "b": 7.0, "c": 0.0, "x": 0.0, "y": 7.0}.__getitem__
    assert lower_bound(CHAIN, late, workers=1) == 18
    assert lower_bound(CHAIN, late, workers=2) == 11
