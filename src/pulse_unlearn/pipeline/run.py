"""A plan's stages in order: found and checked, or carried out and published; then the results."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_unlearn.config import Experiment
from pulse_unlearn.errors import Corrupted, PluginError, Problem, StoreError
from pulse_unlearn.evaluation.parsers import PARSERS
from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.evaluation.table import read_predictions, write_scores
from pulse_unlearn.evaluation.verdicts import ForgettingVerdict
from pulse_unlearn.isolation import isolated
from pulse_unlearn.pipeline.asked import PREDICTIONS, words_notes
from pulse_unlearn.pipeline.decisions import Selection, select_known
from pulse_unlearn.pipeline.failures import Failure, Failures
from pulse_unlearn.pipeline.findings import Evidence, comparisons, paper_findings
from pulse_unlearn.pipeline.inputs import OUTCOME, Inputs, plugin_of, read_inputs
from pulse_unlearn.pipeline.leaks import (
    check_leaks,
    known_sides,
    leak_notes,
    sides_of,
)
from pulse_unlearn.pipeline.ledger import Line, check_order, ledger_entries, write_ledger
from pulse_unlearn.pipeline.progress import Progress, Silent
from pulse_unlearn.pipeline.record import write_record
from pulse_unlearn.pipeline.results import (
    Findings,
    collect_flags,
    compute_results,
    compute_verdicts,
    resolved_sets,
    write_results,
)
from pulse_unlearn.pipeline.samples import collect_samples
from pulse_unlearn.pipeline.signals import StopRequest
from pulse_unlearn.pipeline.tracking import tracked
from pulse_unlearn.records import Cell, Prediction, QuestionScore, Score
from pulse_unlearn.registry import third_parties
from pulse_unlearn.scenarios import Group, ScoreStage, SelectStage, Stage
from pulse_unlearn.store import RunLock, Store, file_errors, refuse_links, write_index, write_json
from pulse_unlearn.store.products import code_digest, made_before, note_made, products

if TYPE_CHECKING:
    from pulse_unlearn.models.loading import RunCache


RECORD = ".results.json"
"""What results, scores and samples were made from; without it they are made again."""
_MADE = ("ledger.", "results.", "samples.", "scores/")
_READING = ("pulse_unlearn.parsers", "pulse_unlearn.measures")
"""Entry points that stored answers are read by."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run leaves behind."""

    run: Path
    computed: int
    reused: int
    seconds: float
    measured: bool = True
    """Whether there are results: not where every operation is missing."""
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """Stage -> why a third party's code failed in it."""

    def raise_failures(self) -> None:
        """Raise PluginError with every failure; nothing if there is none."""
        again = f"tracebacks are in {self.run / 'failures'}; the same command tries again"
        if self.failures:
            raise PluginError(
                [Problem(one.why, stage, fix=again) for stage, one in self.failures.items()]
            )


class _Pipeline:
    """One run: inputs, store and what has been read back from finished stages."""

    def __init__(
        self, inputs: Inputs, run: Path, *, repair: bool, progress: Progress, stop: StopRequest
    ) -> None:
        self.inputs, self.run, self.repair = inputs, run, repair
        self.progress, self.stop = progress, stop
        self.caches: dict[str, RunCache] = {}
        self.store = Store(run)
        self.failures = Failures(run, inputs.keys)
        self.predictions_of = cache(self._predictions_of)
        self.answers_of = cache(self._answers_of)
        self.scores_of = cache(self._scores_of)

    def folder_of(self, name: str) -> Path:
        folder = self.store.find(self.inputs.keys[name])
        if folder is None:
            raise KeyError(name)
        return folder

    def resolve(self, group: Group) -> tuple[str, ...]:
        if not group.selection:
            return group.ids
        return group.among(self._selection(group.selection))

    def evidence(self) -> Evidence:
        wider = {q.id: q.l2_category for q in self.inputs.general if q.l2_category}
        experiment = self.inputs.experiment
        return Evidence(
            self.inputs.plan,
            self.scores_of,
            self._outcome_of,
            self.resolve,
            methods={label: one.method for label, one in experiment.methods.items()},
            l2_categories=wider,
            same_people="people" not in experiment.vary,
        )

    def selections(self) -> list[dict[str, Any]]:
        """Return how well the chosen are known, by choice."""
        found = []
        for stage in self.inputs.plan.stages:
            if isinstance(stage, SelectStage):
                chosen = self._selection(stage.name)
                last = min(one["accuracy"] for one in chosen["candidates"] if one["chosen"])
                told = {"stage": stage.name, "candidates": len(chosen["candidates"])}
                told |= {"decides": stage.decides, "questions": chosen["questions"]}
                sizes = {name: len(chosen[name]) for name in ("forget", "retain", "unseen")}
                found.append({**told, **sizes, "perfect": chosen["perfect"], "lowest_chosen": last})
        return found

    def _selection(self, name: str) -> dict[str, Any]:
        path = self.folder_of(name) / "selection.json"
        chosen: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return chosen

    def carry_out(self) -> tuple[int, int]:
        """Bring every stage to completion; return how many were computed and reused."""
        computed = reused = 0
        stages = self.inputs.plan.stages
        self.failures.forget()
        self.progress.begin(len(stages))
        for number, stage in enumerate(stages, start=1):
            if self._is_complete(stage):
                self.progress.reuse(number, stage)
                reused += 1
                continue
            if failed := self.failures.skips(stage):
                self.progress.warn(f"{stage.name} is skipped, since {failed} failed")
                continue
            self.stop.check()
            self.progress.start(number, stage)
            started = time.monotonic()
            try:
                self.work_on(stage)
            except PluginError as error:
                self.failures.record(stage.name, error)
                self.progress.warn(f"{error}\nThe run goes on with what does not depend on it.")
                continue
            self.progress.finish(number, stage, time.monotonic() - started)
            computed += 1
        return computed, reused

    def work_on(self, stage: Stage) -> bool:
        """Carry out one stage whose parents are complete; False if another process was faster."""
        key = self.inputs.keys[stage.name]
        with self.store.stage_lock(key):
            if self.store.find(key) is not None:
                return False
            with (
                file_errors(self.store.run, f"carry out {stage.name}"),
                isolated(stage.name, plugin_of(stage)),
            ):
                self._work(stage)
            self._publish(stage)
            return True

    def _is_complete(self, stage: Stage) -> bool:
        key = self.inputs.keys[stage.name]
        if self.store.find(key) is None:
            return False
        try:
            self.store.check(key)
        except Corrupted:
            if not self.repair:
                raise
            aside = self.store.discard(key)
            self.progress.warn(f"{stage.name} was damaged; moved to {aside}, computed anew")
            return False
        return True

    def _work(self, stage: Stage) -> None:
        folder = self.store.partial(self.inputs.keys[stage.name])
        if isinstance(stage, SelectStage):
            self._select(stage, folder)
            return
        if not self.caches:
            self.progress.prepare("loading the model")
        # Only here, so that a run with nothing to compute loads neither torch nor a model.
        from pulse_unlearn.models.loading import RunCache
        from pulse_unlearn.pipeline.runners import RUNNERS
        from pulse_unlearn.pipeline.stage_context import StageContext

        self.stop.check()  # the first import takes seconds
        kinds = {one.kind for one in self.inputs.plan.stages} - {SelectStage.kind}
        runners = {kind: RUNNERS.get(kind) for kind in kinds}
        # Pictures seen by a tower are named by its weights, so that all models share them.
        first = next(iter(self.caches.values()), RunCache())
        cache = self.caches.setdefault(stage.model, RunCache(first.features))
        of_run = (self.folder_of, self.resolve, self.progress, self.stop, cache)
        runners[stage.kind](StageContext(self.inputs, stage, folder, *of_run))

    def _select(self, stage: SelectStage, folder: Path) -> None:
        settings, decides = stage.settings, stage.decides
        asked = self.predictions_of(stage.asked)
        # `rotated` is no parser: what the text says does not matter there.
        parser = "strict" if decides == "rotated" else decides
        selection = select_known(
            by_question(asked, score_all(asked, parser=parser)),
            frozenset(stage.candidates.ids),
            forget=settings.forget,
            retain=settings.retain,
            unseen=stage.unseen,
            seed=stage.seed,
            decides=decides,
        )
        sides = (("forget", selection.forget), ("retain", selection.retain))
        check_leaks(self.inputs, [sides])
        write_json(folder / "selection.json", self._selection_record(stage, selection))

    def _selection_record(self, stage: SelectStage, selection: Selection) -> dict[str, Any]:
        return {
            **asdict(selection),
            "perfect": selection.perfect,
            "model": self.inputs.digests["model"],
            "prompt": self.inputs.experiment.data.people_prompt,
            "questions": stage.settings.select_on,
            "seed": stage.seed,
        }

    def _publish(self, stage: Stage) -> None:
        made_of = self.inputs.ingredients[stage.name]
        self.store.publish(
            self.inputs.keys[stage.name],
            kind=made_of.kind,
            settings=made_of.settings,
            data=made_of.data,
            parents=made_of.parents,
        )

    def _predictions_of(self, name: str) -> tuple[Prediction, ...]:
        return read_predictions(self.folder_of(name) / PREDICTIONS)

    def _answers_of(self, name: str) -> tuple[Score, ...]:
        parser = self.inputs.experiment.scoring.parser
        return score_all(self.predictions_of(name), parser=parser)

    def _scores_of(self, name: str) -> tuple[QuestionScore, ...]:
        return by_question(self.predictions_of(name), self.answers_of(name))

    def _outcome_of(self, name: str) -> dict[str, Any]:
        path = self.folder_of(name) / OUTCOME
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


def run_experiment(
    experiment: Experiment,
    runs: Path,
    *,
    repair: bool = False,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> Finished:
    """Run an experiment into `runs/<name>/`, reusing what is complete there; write its results.

    Raises RunLocked if another process works there, Corrupted if a finished stage was damaged
    (unless `repair`, which sets it aside and computes it anew), Interrupted if asked to stop.
    """
    started = time.monotonic()
    inputs = read_inputs(experiment)
    run = runs / experiment.name
    with RunLock(run), tracked(experiment, run, progress or Silent()) as watch:
        pipeline = _Pipeline(inputs, run, repair=repair, progress=watch, stop=stop or StopRequest())
        check_leaks(inputs, known_sides(inputs.plan))
        check_order(run, inputs.requests)
        write_record(run, inputs)
        computed, reused = pipeline.carry_out()
        measured = write_products(pipeline)
        if measured:
            watch.results(run)
    seconds = time.monotonic() - started
    return Finished(run, computed, reused, seconds, measured, pipeline.failures.found)


def run_stage(
    experiment: Experiment,
    runs: Path,
    name: str,
    *,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> bool:
    """Carry out one stage of an experiment, for launchers; False if it is complete already.

    Takes the stage's own lock and not the run's, so that several processes can share a run folder.
    Raises StoreError if a stage it rests on is not complete, RunLocked if another process works on
    it, and KeyError if there is no such stage.
    """
    inputs, run = read_inputs(experiment), runs / experiment.name
    run.mkdir(parents=True, exist_ok=True)
    refuse_links(run)
    pipeline = _Pipeline(
        inputs, run, repair=False, progress=progress or Silent(), stop=stop or StopRequest()
    )
    stage = inputs.plan.stage(name)
    missing = [
        Problem("this stage is not complete, and another rests on it", str(run), parent)
        for parent in stage.parents
        if pipeline.store.find(inputs.keys[parent]) is None
    ]
    if missing:
        raise StoreError(missing)
    return pipeline.work_on(stage)


def rescore(experiment: Experiment, run: Path) -> None:
    """Judge the stored answers of a finished run anew; raises StoreError if a stage is missing.

    Unless a third party's code failed in it, or in one that it depends on, in that run.
    """
    if not run.is_dir():
        raise StoreError(Problem("there is no such run folder", str(run)))
    inputs = read_inputs(experiment)
    with RunLock(run):
        pipeline = _Pipeline(inputs, run, repair=False, progress=Silent(), stop=StopRequest())
        missing = [
            Problem("this stage is not complete", str(run), stage.name, fix="finish the run first")
            for stage in inputs.plan.stages
            if pipeline.store.find(inputs.keys[stage.name]) is None
            and not pipeline.failures.recall(stage.name)
            and not pipeline.failures.skips(stage)
        ]
        if missing:
            raise StoreError(missing)
        write_record(run, inputs)
        write_products(pipeline)


def write_products(pipeline: _Pipeline) -> bool:
    """Write results, scores, samples and the index from finished stages.

    Nothing is written where the last ones were made of the same stages by the same code, or where
    no operation is left to measure; tell whether there are any.
    """
    inputs, record = pipeline.inputs, pipeline.run / RECORD
    missing = pipeline.failures.notes(inputs.plan)
    notes = (*missing, *_parser_notes(inputs.experiment), *inputs.notes)
    inputs = replace(inputs, plan=pipeline.failures.without(inputs.plan), notes=notes)
    if not inputs.plan.operations:
        return False
    pipeline.inputs = inputs
    made_from = {
        "stages": [inputs.keys[stage.name].folder for stage in inputs.plan.stages],
        "experiment": inputs.experiment.model_dump(mode="json", exclude={"trackers"}),
        "notes": list(inputs.notes),
        "requests": [asdict(request) for request in inputs.requests],
        "code": code_digest(),
        "plugins": [asdict(one) for group in _READING for one in third_parties(group)],
    }
    if made_before(record, made_from) is None:
        _make_products(pipeline)
        made = [name for name in products(pipeline.run) if name.startswith(_MADE)]
        note_made(record, made_from, made)
    write_index(pipeline.run)
    return True


def _make_products(pipeline: _Pipeline) -> None:
    evidence, run = pipeline.evidence(), pipeline.run
    verdicts = compute_verdicts(evidence)
    sides = sides_of(evidence.plan.operations, evidence.resolve)
    findings = Findings(
        verdicts,
        collect_flags(evidence, verdicts),
        paper_findings(evidence),
        comparisons(evidence),
        pipeline.selections(),
        resolved_sets(evidence),
        [
            *pipeline.inputs.notes,
            *leak_notes(pipeline.inputs, sides),
            *words_notes(pipeline.inputs),
        ],
    )
    results = compute_results(evidence, verdicts)
    write_results(run, results, findings, same_people=evidence.same_people)
    write_ledger(run, _entries(pipeline, verdicts))
    _write_scores(pipeline)
    samples = collect_samples(
        evidence,
        people=pipeline.inputs.people,
        general=pipeline.inputs.general,
        predictions_of=pipeline.predictions_of,
        parser=pipeline.inputs.experiment.scoring.parser,
    )
    write_json(run / "samples.json", samples)


def _entries(pipeline: _Pipeline, verdicts: Mapping[Cell, ForgettingVerdict]) -> list[Line]:
    inputs = pipeline.inputs
    return ledger_entries(
        inputs.experiment,
        inputs.requests,
        inputs.plan.operations,
        verdicts,
        model=inputs.digests["model"],
        folder_of=pipeline.folder_of,
    )


def _parser_notes(experiment: Experiment) -> list[str]:
    """Return whose parser reads the answers, which no stage's manifest says."""
    parser = experiment.scoring.parser
    plugin = PARSERS.origin(parser)
    if plugin is None:
        return []
    return [f"answers are read by the parser '{parser}' of {plugin}, sources {plugin.sources[:8]}"]


_SCORES = re.compile(r"\d+-.+-[0-9a-f]{8}\.parquet")


def _write_scores(pipeline: _Pipeline) -> None:
    """Write the verdict on every answer, a file per score stage; files of older plans go."""
    folder = pipeline.run / "scores"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if _SCORES.fullmatch(old.name):
            old.unlink()
    for stage in pipeline.inputs.plan.stages:
        if isinstance(stage, ScoreStage):
            name = pipeline.folder_of(stage.name).name
            write_scores(folder / f"{name}.parquet", pipeline.answers_of(stage.name))
