"""A finished run as Python objects: its numbers, every stored answer, its pictures and settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_unlearn.api import columns
from pulse_unlearn.api.experiments import resolve, write_report
from pulse_unlearn.api.folder import Evaluated, Folder, open_folder, read_json
from pulse_unlearn.api.frames import choose_frame, make_frame
from pulse_unlearn.config import read_yaml
from pulse_unlearn.errors import Corrupted, DataError, Problem
from pulse_unlearn.evaluation.measures import GENERAL, MEASURES
from pulse_unlearn.evaluation.scoring import by_question
from pulse_unlearn.evaluation.table import read_predictions, read_scores
from pulse_unlearn.files import plain_file
from pulse_unlearn.pipeline.asked import PREDICTIONS
from pulse_unlearn.pipeline.results import measured_sets, request_sets
from pulse_unlearn.records import Cell, Prediction, Question, QuestionScore, Result, Score
from pulse_unlearn.report.load import load_run as load_record
from pulse_unlearn.store import file_errors, read_manifest

if TYPE_CHECKING:
    from PIL.Image import Image

    from pulse_unlearn.api.material import Material
    from pulse_unlearn.config import Experiment


def load_run(path: str | PathLike[str], *, frame: str | None = None) -> LoadedRun:
    """Read a finished run folder; needs neither torch nor the model.

    `frame` is `pandas`, `polars` or `arrow` (a pyarrow table); by default the first that is
    installed. Raises StoreError for a folder that is no run or a run that is not complete,
    Corrupted for files that are not what was written, ConfigError for an unknown frame.
    """
    kind = choose_frame(frame)
    folder = open_folder(Path(path))
    return LoadedRun(folder, load_record(folder.path).results, frame=kind)


class LoadedRun:
    """One finished run. Frames are made anew at each call; answers are read once."""

    def __init__(self, folder: Folder, rows: Sequence[Result], *, frame: Any) -> None:
        self._folder, self._frame = folder, frame
        self.path = folder.path
        self.name = str(folder.plan["name"])
        self.rows = tuple(rows)
        """`results.csv` as records, one number each."""
        self._predictions: dict[str, tuple[Prediction, ...]] = {}
        self._scores: dict[str, tuple[Score, ...]] = {}
        self._questions: dict[str, tuple[QuestionScore, ...]] = {}

    def __repr__(self) -> str:
        return f"<LoadedRun {self.name!r} at {self.path}: {len(self.rows)} numbers>"

    # --- frames

    @property
    def results(self) -> Any:
        """Every number, one a row, with the columns of `results.csv`."""
        rows = ({**asdict(one.cell), **asdict(one.measurement)} for one in self.rows)
        return make_frame(rows, columns.RESULTS, self._frame)

    @property
    def verdicts(self) -> Any:
        """The word for every operation and seed, why, and the readings it rests on."""
        found = self._of_results("verdicts", list)
        return make_frame(
            ({**one, "letter": one["letter"]["letter"]} for one in found),
            columns.VERDICTS,
            self._frame,
        )

    @property
    def models(self) -> Any:
        """Which stage holds the answers of which model: a row for each cell and condition."""
        rows = (
            {**asdict(one.cell), "stage": one.scores, "compared_to": one.compared_to}
            for one in self.evaluations
        )
        return make_frame(rows, columns.MODELS, self._frame)

    @property
    def scores(self) -> Any:
        """Every question of every stage with all measures: what the numbers are means of.

        A measure is null where the question was not asked so.
        """
        measures = dict(MEASURES)
        rows = (
            {"stage": stage, **_plain(score), **{name: of(score) for name, of in measures.items()}}
            for stage in self._folder.scored
            for score in self.question_scores(stage)
        )
        return make_frame(rows, columns.scores(measures), self._frame)

    def answers(
        self,
        stage: str | None = None,
        *,
        scenario: str | None = None,
        method: str | None = None,
        scope: str | None = None,
        seed: int | None = None,
        request: int | None = None,
        condition: str | None = None,
        of_set: str | None = None,
        question: str | None = None,
        individual: str | None = None,
    ) -> Any:
        """Return stored answers, each once: text, log-probabilities, and what was read in it.

        Without arguments all of them. `stage` is one of `stages`; the arguments up to `condition`
        choose models by their cell (`request=0` is before unlearning), `of_set` a set of theirs
        (`forget`, `retain`, `general`, ...). Raises DataError if no model of the run fits.
        """
        wanted = {
            "scenario": scenario,
            "method": method,
            "scope": scope,
            "seed": seed,
            "request": request,
            "condition": condition,
        }
        asked = self._asked(stage, wanted, of_set)
        rows = (
            {"stage": name, **row}
            for name, people in asked.items()
            for row in self._answer_rows(name)
            if (people is None or row["individual"] in people)
            and question in (None, row["question_id"])
            and individual in (None, row["individual"])
        )
        return make_frame(rows, columns.ANSWERS, self._frame)

    # --- what the run is

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that hold answers, in plan order."""
        return self._folder.scored

    @property
    def evaluations(self) -> tuple[Evaluated, ...]:
        """The models that `results` is about."""
        return self._folder.evaluations

    @property
    def plan(self) -> Mapping[str, Any]:
        """`plan.json`: stages with their parents, operations, evaluations."""
        return self._folder.plan

    @cached_property
    def settings(self) -> Experiment:
        """The experiment in full, typed; raises ConfigError if this version cannot read it."""
        return resolve(self.path / "experiment.yaml")

    @cached_property
    def experiment(self) -> Mapping[str, Any]:
        """`experiment.yaml` as plain data, also where its plug-ins are not installed."""
        path = self.path / "experiment.yaml"
        try:
            with file_errors(path, "read"):
                found = read_yaml(plain_file(path).read_text(encoding="utf-8"), str(path))
        except UnicodeDecodeError as error:
            raise Corrupted(Problem("is no text in UTF-8", str(path), str(error))) from error
        if not isinstance(found, dict):
            raise Corrupted(Problem("is not an experiment", str(path)))
        return found

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """Versions and platform it was run with."""
        found: Mapping[str, Any] = read_json(self.path / "environment.json")
        return found

    @property
    def sets(self) -> Mapping[str, Mapping[str, Any]]:
        """Who was in which set, by `SCENARIO/SEED`; `requests` lists people by request."""
        found: Mapping[str, Mapping[str, Any]] = self._of_results("sets", dict)
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know about the data and about what is missing."""
        return tuple(self._of_results("notes", list))

    @cached_property
    def data(self) -> Mapping[str, str]:
        """SHA-256 of every data file the answers were given to, and of the model."""
        found: dict[str, str] = {}
        for stage in self.stages:
            found |= read_manifest(self._folder.stages[stage]).data
        return dict(sorted(found.items()))

    @cached_property
    def _results_json(self) -> Any:
        return read_json(self.path / "results.json")

    def _of_results(self, name: str, kind: type) -> Any:
        """Return a part of `results.json`; raises Corrupted if it is not of this kind."""
        held = self._results_json
        found = held.get(name) if isinstance(held, dict) else None
        if not isinstance(found, kind):
            where, got = str(self.path / "results.json"), type(found).__name__
            raise Corrupted(Problem(f"holds no {name} as written", where, got))
        return found

    # --- answers as records

    def predictions(self, stage: str) -> tuple[Prediction, ...]:
        """Return the stored answers of a stage; raises DataError for an unknown one."""
        if stage not in self._predictions:
            self._known(stage)
            path = self._folder.stages[stage] / PREDICTIONS
            self._predictions[stage] = read_predictions(path)
        return self._predictions[stage]

    def answer_scores(self, stage: str) -> tuple[Score, ...]:
        """Return what was read in each stored answer of a stage, in the same order."""
        if stage not in self._scores:
            self._known(stage)
            name = self._folder.stages[stage].name
            self._scores[stage] = read_scores(self.path / "scores" / f"{name}.parquet")
        return self._scores[stage]

    def question_scores(self, stage: str) -> tuple[QuestionScore, ...]:
        """Return what all answers to each question of a stage say."""
        if stage not in self._questions:
            asked, read = self.predictions(stage), self.answer_scores(stage)
            self._questions[stage] = by_question(asked, read)
        return self._questions[stage]

    def evaluated(self, one: Evaluated) -> tuple[QuestionScore, ...]:
        """Return the question scores that an evaluation's numbers are made of."""
        scores = self.question_scores(one.scores)
        if not one.only:
            return scores
        asked = {score.question_id for score in self.question_scores(one.only)}
        return tuple(score for score in scores if score.question_id in asked)

    def people(self, cell: Cell, name: str) -> frozenset[str]:
        """Return the individuals of a set of a cell; the empty id for `general`."""
        if name == GENERAL:
            return frozenset({""})
        groups = self.sets.get(f"{cell.scenario}/{cell.seed}")
        try:
            found = measured_sets(groups, request=cell.request) if groups else {}
            found |= request_sets(groups) if groups else {}
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            got = f"{type(error).__name__}: {error}"
            where = str(self.path / "results.json")
            raise Corrupted(Problem("holds no sets of people as written", where, got)) from error
        return found.get(name, frozenset())

    # --- material

    def question(self, identity: str) -> Question:
        """Return a question by its id or that of an example of it, read again from the data.

        Raises DataError if there is none, or if the data are not those of the run any more.
        """
        return self._material.question(identity)

    def picture(self, question: str | Prediction | Question) -> Image:
        """Return the picture that a question or an example showed, as a PIL image in RGB.

        Takes ids and records alike; raises DataError where nothing is shown.
        """
        if isinstance(question, Prediction):
            question = question.example_id
        return self._material.picture(question.id if isinstance(question, Question) else question)

    @cached_property
    def _material(self) -> Material:
        from pulse_unlearn.api.material import Material

        return Material(self.settings, self.data)

    # --- choosing

    def _known(self, stage: str) -> None:
        if stage not in self.stages:
            allowed = ", ".join(self.stages)
            raise DataError(Problem("no stage with answers", str(self.path), repr(stage), allowed))

    def _asked(
        self, stage: str | None, wanted: Mapping[str, object], of_set: str | None
    ) -> dict[str, Collection[str] | None]:
        """Return stage -> the people whose answers are chosen there; None for everybody."""
        chosen = {name: value for name, value in wanted.items() if value is not None}
        if stage is not None:
            self._known(stage)
        if not chosen and of_set is None:
            return dict.fromkeys(self.stages if stage is None else [stage])
        fitting = [
            one
            for one in self.evaluations
            if stage in (None, one.scores)
            and all(getattr(one.cell, name) == value for name, value in chosen.items())
        ]
        if of_set is None:
            self._some(fitting, chosen, wanted)
            return {one.scores: None for one in fitting}
        found: dict[str, set[str]] = {}
        for one in fitting:
            if people := self.people(one.cell, of_set):
                found.setdefault(one.scores, set()).update(people)
        self._some(found, {**chosen, "of_set": of_set}, wanted)
        return {name: found[name] for name in found}

    def _some(
        self, found: Collection[object], chosen: Mapping[str, object], columns: Iterable[str]
    ) -> None:
        """Raise DataError, with what there is to choose from, if nothing was found."""
        if not found:
            there = {
                name: list(dict.fromkeys(getattr(one.cell, name) for one in self.evaluations))
                for name in columns
            }
            allowed = "; ".join(
                f"{name}: {', '.join(map(str, them))}" for name, them in there.items()
            )
            got = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
            raise DataError(Problem("no model of this run fits", str(self.path), got, allowed))

    def _answer_rows(self, stage: str) -> Iterator[dict[str, Any]]:
        pairs = zip(self.predictions(stage), self.answer_scores(stage), strict=True)
        for answer, score in pairs:
            yield {**asdict(answer), **asdict(score), "right": score.verdict == "correct"}

    def report(self, *, redraw: bool = False) -> Path:
        """Write `report.html` and its figures if they are not current; return the path."""
        return write_report(self.path, redraw=redraw).path


def _plain(score: QuestionScore) -> dict[str, Any]:
    """Return what a question score says beside its measures."""
    return {name: getattr(score, name) for name, _ in columns.QUESTION}
