"""A plan's stages in order: found and checked, or carried out and published; then the results."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_unlearn.config import Experiment
from pulse_unlearn.errors import Corrupted, Problem, StoreError
from pulse_unlearn.evaluation.readings import by_question
from pulse_unlearn.evaluation.scoring import score_all
from pulse_unlearn.evaluation.table import read_predictions, write_scores
from pulse_unlearn.pipeline.asked import PREDICTIONS, words_notes
from pulse_unlearn.pipeline.findings import Material, comparisons, paper_findings
from pulse_unlearn.pipeline.inputs import OUTCOME, Inputs, read_inputs
from pulse_unlearn.pipeline.leaks import (
    all_sides,
    check_leaks,
    known_sides,
    leak_notes,
    selected_sides,
)
from pulse_unlearn.pipeline.progress import Progress, Silent
from pulse_unlearn.pipeline.record import write_record
from pulse_unlearn.pipeline.results import (
    Evidence,
    Findings,
    collect_flags,
    compute_results,
    compute_verdicts,
    resolved_sets,
    write_results,
)
from pulse_unlearn.pipeline.samples import collect_samples
from pulse_unlearn.pipeline.select import Selection, select_known
from pulse_unlearn.pipeline.signals import StopRequest
from pulse_unlearn.records import Prediction, QuestionScore, Score
from pulse_unlearn.registry import third_parties
from pulse_unlearn.scenarios import Group, ScoreStage, SelectStage, Stage
from pulse_unlearn.store import Store, run_lock, write_index, write_json
from pulse_unlearn.store.products import code_digest, made_before, note_made, products

if TYPE_CHECKING:
    from pulse_unlearn.models.fast.run_cache import RunCache


RECORD = ".results.json"
"""What results, scores and samples were made from; without it they are made again."""
_MADE = ("results.", "samples.", "scores/")
_READING = ("pulse_unlearn.parsers", "pulse_unlearn.measures")
"""Entry points that stored answers are read by."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run leaves behind."""

    run: Path
    computed: int
    reused: int
    seconds: float


class _Pipeline:
    """One run: inputs, store and what has been read back from finished stages."""

    def __init__(
        self, inputs: Inputs, run: Path, *, repair: bool, progress: Progress, stop: StopRequest
    ) -> None:
        self.inputs, self.run, self.repair = inputs, run, repair
        self.progress, self.stop = progress, stop
        self.cache: RunCache | None = None
        self.store = Store(run)
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
        chosen = self._selection(group.selection)
        if group.part == "all":
            return (*chosen["forget"], *chosen["retain"], *chosen["unseen"])
        return tuple(chosen[group.part])

    def evidence(self) -> Evidence:
        wider = {q.id: q.l2_category for q in self.inputs.general if q.l2_category}
        return Evidence(
            self.inputs.plan,
            self.scores_of,
            self._outcome_of,
            self.resolve,
            wider,
            same_people="people" not in self.inputs.experiment.vary,
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
        self.progress.begin(len(stages))
        for number, stage in enumerate(stages, start=1):
            if self._is_complete(stage):
                self.progress.reuse(number, stage)
                reused += 1
                continue
            self.stop.check()
            self.progress.start(number, stage)
            started = time.monotonic()
            self._work(stage)
            self._publish(stage)
            self.progress.finish(number, stage, time.monotonic() - started)
            computed += 1
        return computed, reused

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
        # Only here, so that a run with nothing to compute loads neither torch nor a model.
        from pulse_unlearn.models.fast.run_cache import RunCache
        from pulse_unlearn.pipeline.runners import RUNNERS
        from pulse_unlearn.pipeline.stage_context import StageContext

        self.stop.check()  # the first import takes seconds
        kinds = {one.kind for one in self.inputs.plan.stages} - {SelectStage.kind}
        runners = {kind: RUNNERS.get(kind) for kind in kinds}
        self.cache = self.cache or RunCache()
        of_run = (self.folder_of, self.resolve, self.progress, self.stop, self.cache)
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
        check_leaks(self.inputs, selected_sides(selection.forget, selection.retain))
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
    with run_lock(run):
        pipeline = _Pipeline(
            inputs, run, repair=repair, progress=progress or Silent(), stop=stop or StopRequest()
        )
        check_leaks(inputs, known_sides(inputs.plan))
        write_record(run, inputs)
        computed, reused = pipeline.carry_out()
        write_products(pipeline)
    return Finished(run, computed, reused, time.monotonic() - started)


def rescore(experiment: Experiment, run: Path) -> None:
    """Judge the stored answers of a finished run anew; raises StoreError if a stage is missing."""
    if not run.is_dir():
        raise StoreError(Problem("there is no such run folder", str(run)))
    inputs = read_inputs(experiment)
    with run_lock(run):
        pipeline = _Pipeline(inputs, run, repair=False, progress=Silent(), stop=StopRequest())
        missing = [
            Problem("this stage is not complete", str(run), stage.name, fix="finish the run first")
            for stage in inputs.plan.stages
            if pipeline.store.find(inputs.keys[stage.name]) is None
        ]
        if missing:
            raise StoreError(missing)
        write_record(run, inputs)
        write_products(pipeline)


def write_products(pipeline: _Pipeline) -> None:
    """Write results, scores, samples and the index from finished stages.

    Nothing is written where the last ones were made of the same stages by the same code.
    """
    inputs, record = pipeline.inputs, pipeline.run / RECORD
    made_from = {
        "stages": [inputs.keys[stage.name].folder for stage in inputs.plan.stages],
        "experiment": inputs.experiment.model_dump(mode="json"),
        "notes": list(inputs.notes),
        "code": code_digest(),
        "plugins": [asdict(one) for group in _READING for one in third_parties(group)],
    }
    if made_before(record, made_from) is None:
        _make_products(pipeline)
        made = [name for name in products(pipeline.run) if name.startswith(_MADE)]
        note_made(record, made_from, made)
    write_index(pipeline.run)


def _make_products(pipeline: _Pipeline) -> None:
    evidence, run = pipeline.evidence(), pipeline.run
    verdicts = compute_verdicts(evidence)
    methods = {label: one.method for label, one in pipeline.inputs.experiment.methods.items()}
    material = Material(evidence.plan, evidence.scores_of, evidence.resolve, methods)
    sides = all_sides(evidence.plan, evidence.resolve)
    findings = Findings(
        verdicts,
        collect_flags(evidence, verdicts),
        paper_findings(material),
        comparisons(material),
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
    _write_scores(pipeline)
    samples = collect_samples(
        evidence,
        people=pipeline.inputs.people,
        general=pipeline.inputs.general,
        predictions_of=pipeline.predictions_of,
        parser=pipeline.inputs.experiment.scoring.parser,
    )
    write_json(run / "samples.json", samples)


def _write_scores(pipeline: _Pipeline) -> None:
    """Write the verdict on every answer, a file per score stage; files of older plans go."""
    folder = pipeline.run / "scores"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.parquet"):
        old.unlink()
    for stage in pipeline.inputs.plan.stages:
        if isinstance(stage, ScoreStage):
            name = pipeline.folder_of(stage.name).name
            write_scores(folder / f"{name}.parquet", pipeline.answers_of(stage.name))
