"""The stages of a run: found and checked, or carried out and published; and what they hold."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pulse_unlearn.data.facts import attributes_of
from pulse_unlearn.errors import Corrupted, PluginError
from pulse_unlearn.evaluation.intervals import MIN_INDIVIDUALS
from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.evaluation.table import read_predictions
from pulse_unlearn.isolation import isolated
from pulse_unlearn.pipeline.asked import PREDICTIONS
from pulse_unlearn.pipeline.choices import (
    SELECTION,
    choose,
    forgotten_and_kept,
    note_of,
    told_of,
)
from pulse_unlearn.pipeline.failures import Failures
from pulse_unlearn.pipeline.findings import Evidence
from pulse_unlearn.pipeline.inputs import OUTCOME, Inputs, plugin_of
from pulse_unlearn.pipeline.leaks import (
    check_leaks,
)
from pulse_unlearn.pipeline.progress import Noting, Progress
from pulse_unlearn.pipeline.provenance import (
    begin,
    begun_with,
    environment_record,
    noted,
    notes_of,
    other_code,
    require_same,
)
from pulse_unlearn.pipeline.record import record_of
from pulse_unlearn.pipeline.signals import StopRequest
from pulse_unlearn.pipeline.times import note_time
from pulse_unlearn.ranks import ALONE, Ranks
from pulse_unlearn.records import Prediction, QuestionScore, Score
from pulse_unlearn.scenarios import ChoosingStage, Group, MatchStage, SelectStage, Stage
from pulse_unlearn.store import Store, file_errors, write_json

if TYPE_CHECKING:
    from pulse_unlearn.models.loading import RunCache


class Pipeline:
    """One run: inputs, store and what has been read back from finished stages."""

    def __init__(
        self,
        inputs: Inputs,
        run: Path,
        *,
        repair: bool,
        progress: Progress,
        stop: StopRequest,
        ranks: Ranks = ALONE,
    ) -> None:
        self.inputs, self.run, self.repair = inputs, run, repair
        self.progress, self.stop, self.ranks = progress, stop, ranks
        self.caches: dict[str, RunCache] = {}
        self.store = Store(run)
        self.failures = Failures(run, inputs.keys)
        self.predictions_of = cache(self._predictions_of)
        self.answers_of = cache(self._answers_of)
        self.scores_of = cache(self._scores_of)

    def folder_of(self, name: str) -> Path:
        """Return the folder of a finished stage; raises KeyError if it is not."""
        folder = self.store.find(self.inputs.keys[name])
        if folder is None:
            raise KeyError(name)
        return folder

    def resolve(self, group: Group) -> tuple[str, ...]:
        """Return a group's ids, reading a finished selection if need be."""
        if not group.selection:
            return group.ids
        return group.among(self._selection(group.selection))

    def evidence(self) -> Evidence:
        """Return what results are computed from."""
        wider = {q.id: q.l2_category for q in self.inputs.general if q.l2_category}
        experiment = self.inputs.experiment
        return Evidence(
            self.inputs.plan,
            self.scores_of,
            self._outcome_of,
            self.resolve,
            methods={label: one.method for label, one in experiment.methods.items()},
            l2_categories=wider,
            attributes=self._attributes(),
            same_people="people" not in experiment.vary,
            margin=experiment.scoring.margin,
        )

    def _attributes(self) -> dict[str, str]:
        """Return what people's questions ask after, for the leak matrix of methods that need it."""
        methods = self.inputs.experiment.methods.values()
        if all(one.unlearn.modalities == "both" for one in methods):
            return {}
        return attributes_of(self.inputs.people.values(), asked_of=MIN_INDIVIDUALS)

    def selections(self) -> list[dict[str, Any]]:
        """Return how well the chosen are known, by choice."""
        return self._told(SelectStage)

    def matches(self) -> list[dict[str, Any]]:
        """Return how alike the people are whom each match pairs."""
        return self._told(MatchStage)

    def match_notes(self) -> list[str]:
        """Return what is left between the people of each match."""
        matches = [one for one in self.inputs.plan.stages if isinstance(one, MatchStage)]
        return [note_of(stage, self._selection(stage.name)) for stage in matches]

    def _told(self, kind: type[ChoosingStage]) -> list[dict[str, Any]]:
        chosen = [one for one in self.inputs.plan.stages if isinstance(one, kind)]
        return [told_of(stage, self._selection(stage.name)) for stage in chosen]

    def _selection(self, name: str) -> dict[str, Any]:
        path = self.folder_of(name) / SELECTION
        chosen: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return chosen

    def finished(self) -> dict[str, Path]:
        """Return the folders of the plan's stages that are complete, by name."""
        found = {stage.name: self.store.find(self.inputs.keys[stage.name]) for stage in self._plan}
        return {name: folder for name, folder in found.items() if folder}

    def record(self) -> dict[str, str]:
        """Return what the run is, as files by name."""
        return record_of(self.inputs, environment_record(noted(self.finished().values())))

    def require_one_environment(self, *, accept: bool) -> None:
        """Look at what finished and unfinished stages were made with, before anything is computed.

        Raises StoreError for other versions, unless `accept`ed or nothing is left to compute; warns
        of other code.
        """
        done = self.finished()
        made = noted(done.values())
        if other := other_code(made):
            self.progress.warn(
                f"{other} finished stages were computed by other code of this package and are "
                "reused; take another --runs folder to compute them by this one"
            )
        left = [stage for stage in self._plan if stage.name not in done]
        for stage in left:
            folder = self.store.unfinished(self.inputs.keys[stage.name])
            if (begun := begun_with(folder)) is not None:
                made[folder] = begun
        if left and not accept:
            require_same(made)

    @property
    def _plan(self) -> tuple[Stage, ...]:
        return self.inputs.plan.stages

    def carry_out(self) -> tuple[int, int]:
        """Bring every stage to completion; return how many were computed and reused."""
        computed = reused = 0
        stages = self.inputs.plan.stages
        self.failures.forget()
        self.progress.begin(len(stages))
        for number, stage in enumerate(stages, start=1):
            if self.is_complete(stage):
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
                if not self.ranks.alone:  # nobody knows where the other ranks are
                    raise
                self.failures.record(stage.name, error)
                self.progress.warn(f"{error}\nThe run goes on with what does not depend on it.")
                continue
            seconds = time.monotonic() - started
            self.progress.finish(number, stage, seconds)
            note_time(self.run, stage.kind, stage.name, seconds, "local")
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

    def is_complete(self, stage: Stage) -> bool:
        """Tell whether a stage is complete and intact; raises Corrupted, or repairs it."""
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
        begin(folder)
        if isinstance(stage, ChoosingStage):
            self._choose(stage, folder)
            return
        self.ranks.told((stage.name, self.inputs.keys[stage.name].fingerprint))
        self._use_model(stage, folder)

    def follow(self) -> None:
        """Carry out each stage that rank 0 works on beside it, until there are no more.

        What this rank would write goes to a folder that is thrown away. Raises StoreError where it
        sees other data, another model or other code than rank 0.
        """
        while (told := self.ranks.told(None)) is not None:
            stage = self.inputs.stage(*told)
            with TemporaryDirectory() as scratch, isolated(stage.name, plugin_of(stage)):
                self._use_model(stage, Path(scratch))

    def _use_model(self, stage: Stage, folder: Path) -> None:
        """Carry out a stage that needs the model, into a folder."""
        if not self.caches:
            self.progress.prepare("loading the model")
        # Only here, so that a run with nothing to compute loads neither torch nor a model.
        from pulse_unlearn.models.loading import RunCache
        from pulse_unlearn.pipeline.runners import RUNNERS
        from pulse_unlearn.pipeline.stage_context import StageContext

        self.stop.check()  # the first import takes seconds
        plan = self.inputs.plan
        kinds = {one.kind for one in plan.stages if not isinstance(one, ChoosingStage)}
        runners = {kind: RUNNERS.get(kind) for kind in kinds}
        # Pictures seen by a tower are named by its weights, so that all models share them.
        first = next(iter(self.caches.values()), RunCache())
        cache = self.caches.setdefault(stage.model, RunCache(first.features))
        noting = Noting(self.progress, partial(self.store.note, self.inputs.keys[stage.name]))
        of_run = (self.folder_of, self.resolve, noting, self.stop, cache)
        sharded = self.inputs.experiment.speed.sharding == "layers" and not self.ranks.alone
        ranks = replace(self.ranks, lockstep=sharded)
        runners[stage.kind](StageContext(self.inputs, stage, folder, *of_run, ranks))

    def _choose(self, stage: ChoosingStage, folder: Path) -> None:
        chosen = choose(stage, self.predictions_of(stage.asked))
        check_leaks(self.inputs, forgotten_and_kept(chosen))
        record = {
            **chosen,
            "model": self.inputs.digests["model"],
            "prompt": self.inputs.experiment.data.people_prompt,
            "seed": stage.seed,
        }
        write_json(folder / SELECTION, record)

    def _publish(self, stage: Stage) -> None:
        made_of = self.inputs.ingredients[stage.name]
        together = {} if self.ranks.alone else {"processes": self.ranks.count}
        self.store.publish(
            self.inputs.keys[stage.name],
            kind=made_of.kind,
            settings=made_of.settings,
            data=made_of.data,
            parents=made_of.parents,
            notes=notes_of(self.store.unfinished(self.inputs.keys[stage.name])) | together,
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
