"""Trackers are told everything and decide nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

import plugin_cases as plugins
import pulse_unlearn
from pipeline_cases import outcome, result_rows
from pulse_unlearn.cli import pulse
from pulse_unlearn.config import load_experiment
from pulse_unlearn.errors import ConfigError
from pulse_unlearn.launch import launched
from pulse_unlearn.pipeline.progress import Silent
from pulse_unlearn.pipeline.run import Finished, run_experiment
from pulse_unlearn.pipeline.tracking import Tracked
from pulse_unlearn.registries import schemas
from pulse_unlearn.registry import Registry
from pulse_unlearn.trackers import TRACKERS

FAKES = '''
TOLD = []


class Recording:
    """Writes down what it is told."""

    def __init__(self, run):
        TOLD.append(("open", run.name, run.settings["name"]))

    def stage(self, event):
        TOLD.append(("stage", event.state, event.name, event.number, event.total))

    def step(self, stage, step, values):
        TOLD.append(("step", stage, step, values))

    def results(self, rows):
        TOLD.append(("results", len(rows), sum(row.measurement.value is not None for row in rows)))

    def close(self):
        TOLD.append(("close",))


class Broken(Recording):
    """Fails at the first step."""

    def __init__(self, run):
        pass

    def stage(self, event):
        pass

    def step(self, stage, step, values):
        raise SystemExit("no disk")


class Absent:
    """Cannot be opened."""

    def __init__(self, run):
        import a_package_that_is_not_there
'''


class Warned(Silent):
    """Keeps warnings."""

    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    """Three trackers of a third party, found by their entry points."""
    entries = {"recording": "Recording", "broken": "Broken", "absent": "Absent"}
    folder = tmp_path_factory.mktemp("plugin")
    plugins.install(folder, "fake_trackers", FAKES, {"trackers": entries})
    fresh = Registry("tracker", group="pulse_unlearn.trackers")
    for name, entry in TRACKERS:
        fresh.add(name, entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for module in ("pipeline.tracking", "registries", "trackers"):
            patch.setattr(f"pulse_unlearn.{module}.TRACKERS", fresh)
        yield import_module("fake_trackers")


@pytest.fixture
def told(fakes):
    """What the recording tracker is told in this test."""
    fakes.TOLD.clear()
    return fakes.TOLD


@dataclass(frozen=True)
class Continued:
    run: Path
    finished: Finished
    warnings: list[str]
    told: list[tuple[object, ...]]


@pytest.fixture(scope="module")
def continued(bench, fakes, tmp_path_factory):
    """A run continued at its last unlearning, told to every tracker there is."""
    runs = tmp_path_factory.mktemp("continued")
    run = unfinished(bench, runs)
    real = ["tensorboard"] if find_spec("tensorboard") else []
    fakes.TOLD.clear()
    finished, warnings = run_again(bench, runs, "absent", "broken", *real, "recording")
    return Continued(run, finished, warnings, list(fakes.TOLD))


def unfinished(bench, runs):
    """The finished run without its last unlearning: two stages are computed again."""
    run = bench.copied(runs)
    for folder in run.glob("stages/*sustainability.npo.request2*"):
        shutil.rmtree(folder)
    return run


def run_again(bench, runs, *trackers):
    overrides = [f"trackers=[{','.join(trackers)}]"] if trackers else []
    experiment = load_experiment(str(bench.experiment), overrides=overrides, schemas=schemas())
    watch = Warned()
    finished = run_experiment(experiment, runs, progress=watch)
    return finished, watch.warnings


def test_a_tracker_is_told_stages_steps_and_results_and_those_that_fail_are_left_out(
    bench, continued
):
    run, finished, warnings = continued.run, continued.finished, continued.warnings
    assert (finished.computed, finished.reused) == (2, 12)
    assert outcome(run).keys() == outcome(bench.finished).keys()
    assert (run / "results.csv").read_bytes() == (bench.finished / "results.csv").read_bytes()

    assert len(warnings) == 2
    assert "a_package_that_is_not_there" in warnings[0]
    assert "pip install 'pulse-unlearn[absent]'" in warnings[0]
    assert "fake_trackers 0.1" in warnings[1]
    assert "no disk" in warnings[1]

    told = continued.told
    assert told[0] == ("open", "tiny", "tiny")
    assert told[-1] == ("close",)
    unlearn, score = (f"seed0/sustainability/npo/request2/{part}" for part in ("unlearn", "score"))
    states = [one[1:] for one in told if one[0] == "stage"]
    assert [state for state, *_ in states[:12]] == ["reused"] * 12
    assert states[12:] == [
        ("started", unlearn, 13, 14),
        ("finished", unlearn, 13, 14),
        ("started", score, 14, 14),
        ("finished", score, 14, 14),
    ]
    (log,) = run.glob("stages/*npo.request2.unlearn-*/train.jsonl")
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [one[1:] for one in told if one[0] == "step"]
    assert [(stage, step) for stage, step, _ in steps] == [(unlearn, row["step"]) for row in rows]
    assert [values["npo"] for _, _, values in steps] == [row["npo"] for row in rows]
    assert not any("step" in values or "skipped" in values for _, _, values in steps)
    there = result_rows(run)
    (results,) = (one for one in told if one[0] == "results")
    assert results == ("results", len(there), sum(row["value"] != "" for row in there))


@pytest.mark.slow  # a run by two processes
def test_steps_of_other_processes_are_told_as_those_of_this_one(continued, bench, tmp_path, told):
    runs = tmp_path / "beside"
    unfinished(bench, runs)
    experiment = load_experiment(
        str(bench.experiment), overrides=["trackers=[recording]"], schemas=schemas()
    )
    run_experiment(experiment, runs, carry_out=launched("local:2", experiment, runs))
    kept = [one for one in continued.told if one[0] == "step"]
    steps = [one for one in told if one[0] == "step"]
    # What a step took is no result.
    for *_, values in (*kept, *steps):
        values.pop("seconds")
    assert len(steps) == 3
    assert steps == kept
    at = [one[:3] if one[0] == "stage" else one[0] for one in told]
    assert at.index("step") > at.index(("stage", "started", kept[0][1]))
    assert at.index("step") < at.index(("stage", "finished", kept[0][1]))


def test_a_tracker_is_in_no_fingerprint_and_changes_no_file_of_results(bench, tmp_path, told):
    run = bench.copied(tmp_path)
    before = outcome(run)
    record = (run / ".results.json").read_bytes()
    finished, warnings = run_again(bench, tmp_path, "recording")
    assert (finished.computed, warnings) == (0, [])
    assert outcome(run) == before
    assert (run / ".results.json").read_bytes() == record
    for name in ("experiment.yaml", "plan.json"):
        assert (run / name).read_bytes() == (bench.finished / name).read_bytes()
    assert [one[0] for one in told if one[0] not in ("stage", "open")] == ["results", "close"]


def test_an_unknown_tracker_is_a_mistake_in_the_experiment(bench):
    run = {"name": "x", "methods": {"ga": {}}, "scenarios": {}, "trackers": ["tensorbord"]}
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'") as error:
        pulse_unlearn.run(run)
    assert "trackers" in error.value.problems[0].where
    told = CliRunner().invoke(pulse, ["run", str(bench.experiment), "--track", "tensorbord"])
    assert isinstance(told.exception, ConfigError)
    assert told.exception.problems[0].where == "--set trackers=[tensorbord]"


def test_phases_of_a_procedure_are_counted_on(bench, tmp_path, told):
    experiment = load_experiment(
        str(bench.experiment), overrides=["trackers=[recording]"], schemas=schemas()
    )
    tracked = Tracked(experiment, tmp_path, Silent())
    stage = type("Named", (), {"name": "s"})()
    tracked.start(1, stage)
    for done in (1, 2, 1, 2, 3):
        tracked.advance(done, 3, {"nll": 1.0, "step": done, "phase": "first", "skipped": False})
    tracked.advance(5, 9, {})
    tracked.start(2, stage)
    tracked.advance(7, 9, {"nll": 2.0})  # resumed
    steps = [one[2:] for one in told if one[0] == "step"]
    assert steps == [(n, {"nll": 1.0}) for n in (1, 2, 3, 4, 5)] + [(7, {"nll": 2.0})]


def test_tensorboard_shows_what_was_logged(continued):
    pytest.importorskip("tensorboard", reason="tensorboard is an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = continued.run
    events = EventAccumulator(str(run / "trackers" / "tensorboard"))
    events.Reload()
    (log,) = run.glob("stages/*npo.request2.unlearn-*/train.jsonl")
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    curve = events.Scalars("seed0/sustainability/npo/request2/unlearn/npo")
    assert [(one.step, one.value) for one in curve] == [
        (row["step"], pytest.approx(row["npo"], rel=1e-6)) for row in rows
    ]
    assert [one.value for one in events.Scalars("stages/done")] == list(range(1, 15))
    name = "results/sustainability/npo/projector+llm/seed0/plain/forget/accuracy"
    wanted = {
        int(row["request"]): float(row["value"])
        for row in result_rows(run)
        if (row["scenario"], row["set"], row["modality"], row["measure"])
        == ("sustainability", "forget", "all", "accuracy")
    }
    found = {one.step: pytest.approx(one.value, abs=1e-6) for one in events.Scalars(name)}
    assert wanted == found
    assert pulse_unlearn.load_run(run).name == "tiny"
