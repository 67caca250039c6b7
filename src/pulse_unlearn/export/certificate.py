"""The facts about one request, for a data protection officer: asked, done, tested, not tested."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pulse_unlearn import __version__
from pulse_unlearn.config import ScoringSettings
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.evaluation.measures import ALL, READINGS
from pulse_unlearn.evaluation.metrics import people_measures
from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.evaluation.table import read_predictions
from pulse_unlearn.export.finished import FinishedRun
from pulse_unlearn.pipeline.asked import PREDICTIONS
from pulse_unlearn.pipeline.inputs import OUTCOME
from pulse_unlearn.pipeline.ledger import LEDGER
from pulse_unlearn.pipeline.results import rounded
from pulse_unlearn.records import PLAIN, Cell, Measurement
from pulse_unlearn.report.estimates import Place
from pulse_unlearn.report.load import RunRecord
from pulse_unlearn.report.scoreboard import Verdicts
from pulse_unlearn.scenarios import EVALUATIONS, RETAIN_MODEL, Operation, UnlearnStage
from pulse_unlearn.store import MANIFEST, read_manifest, sha256_file

KIND = "pulse-certificate"
HASH = "sha256 of the salt, a line feed and the person's id in the data set, UTF-8"
_PRODUCTS = ("experiment.yaml", "plan.json", "results.csv", "results.json")
_LATENT = "latent_accuracy"
_LIMITS = (
    "No test can show that nothing is left. Where a reading found nothing, it found nothing: other "
    "questions, languages, pictures or attacks may still bring knowledge back.",
    "It is about the one model with the digest above. Other copies of the model, earlier models, "
    "backups, and the data themselves are not covered.",
    "One seed is one run: another seed may end differently, and intervals do not cover that.",
    "Signed or not, it proves what was measured here, and not that the law is satisfied.",
)


def facts(
    run: FinishedRun, results: RunRecord, operation: Operation, *, names: bool
) -> dict[str, Any]:
    """Return everything a certificate says, as JSON can say it.

    People are a number and a salted hash, unless `names`. Raises StoreError for a stage that is
    not finished.
    """
    cell = operation.cell
    place = Place(cell.scenario, cell.method, cell.scope, cell.request)
    plain = [one for one in results.extras.verdicts if one.seed == cell.seed]
    judged = Verdicts(plain).at(place)
    return {
        "kind": KIND,
        "version": 1,
        "pulse": __version__,
        "issued": datetime.now(UTC).date().isoformat(),
        "run": results.name,
        "operation": {
            name: getattr(cell, name) for name in ("scenario", "method", "scope", "seed", "request")
        },
        "asked": _asked(run, operation, names=names),
        "done": _done(run, operation),
        "tested": _tested(run, results, operation),
        "verdict": {
            "word": judged.text,
            "rule": " ".join(word.rule for word in judged.words),
            "why": list(judged.whys),
            "conditions": _other_verdicts(run, cell),
        },
        "not_tested": list(_not_tested(run)),
        "limits": list(_LIMITS),
        "files": _files(run, operation),
    }


def choose_operation(
    run: FinishedRun, *, request: int, scenario: str | None, method: str | None, seed: int | None
) -> Operation:
    """Return the one operation that is meant; raises ConfigError that lists what there is.

    And for one of a method that serves, which leaves the model as it was.
    """
    found = [
        one
        for one in run.inputs.plan.operations
        if one.cell.request == request
        and one.unlearn  # an audited model was made by nobody knows what
        and scenario in (None, one.cell.scenario)
        and method in (None, one.cell.method)
        and seed in (None, one.cell.seed)
    ]
    if len(found) == 1:
        if found[0].served:
            raise ConfigError(
                Problem(
                    "a certificate is about one model, and this method changes what is served "
                    "around it: the weights inside still know",
                    str(run.folder),
                    got=found[0].cell.method,
                    allowed="methods that change weights",
                    fix="evaluations: {adapter_off: {}} says what the weights know",
                )
            )
        return found[0]
    shown = "\n".join(
        f"    --request {one.cell.request} --scenario {one.cell.scenario} "
        f"--method {one.cell.method} --seed {one.cell.seed}"
        for one in found or run.inputs.plan.operations
    )
    what = f"{len(found)} operations are meant" if found else "there is no such operation"
    raise ConfigError(Problem(what, str(run.folder), allowed=f"one of\n{shown}"))


def _asked(run: FinishedRun, operation: Operation, *, names: bool) -> dict[str, Any]:
    number = operation.cell.request
    people = run.resolve(operation.requests[number - 1])
    asked: dict[str, Any] = {"request": number, "of": len(operation.requests), "date": ""}
    if operation.cell.scenario == "requests":
        named = run.inputs.requests[number - 1]
        # A request's own name, and its reason, may name its person.
        asked |= {"date": named.date, **({"name": named.name, "why": named.why} if names else {})}
    salt = secrets.token_hex(16)
    told = []
    for place, identity in enumerate(people, start=1):
        digest = hashlib.sha256(f"{salt}\n{identity}".encode()).hexdigest()
        shown = {"id": identity, "name": run.inputs.people[identity].name} if names else {}
        told.append({"number": place, "sha256": digest, **shown})
    return {**asked, "salt": salt, "hash": HASH, "people": told}


def _done(run: FinishedRun, operation: Operation) -> dict[str, Any]:
    stage = run.inputs.plan.stage(operation.unlearn)
    assert isinstance(stage, UnlearnStage)  # the planner makes no other operation
    folder = run.folder_of(stage.name)
    outcome = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
    written = datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime, UTC)
    return {
        "method": stage.method,
        "settings": dict(stage.method_settings),
        "unlearn": stage.settings.model_dump(mode="json"),
        "steps": outcome["steps"],
        "stopped_by": outcome["stopped_by"],
        "files_dated": written.date().isoformat(),
        "model_before": _model(run, operation.chain[: operation.chain.index(stage.name)]),
        "model_after": _model(run, operation.chain),
    }


def _model(run: FinishedRun, chain: Sequence[str]) -> dict[str, Any]:
    """Return what a model is: the base model's digest, and that of each update on it."""
    base = run.inputs.digests["model"]
    updates = {
        name: {
            path: entry.sha256
            for path, entry in read_manifest(run.folder_of(name)).files.items()
            if path.startswith("adapter/")
        }
        for name in chain
    }
    lines = [base, *(digest for files in updates.values() for digest in files.values())]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    source = run.inputs.experiment.model.source
    named = {"source": Path(source).name, "revision": run.inputs.experiment.model.revision}
    return {"sha256": digest, "base": {**named, "sha256": base}, "updates": updates}


def _tested(run: FinishedRun, results: RunRecord, operation: Operation) -> dict[str, Any]:
    """Return readings about the people asked for, by condition, and what it cost others."""
    cell = operation.cell
    before = replace(cell, request=0)
    models = {"before": operation.before, "after": operation.after}
    if operation.never_knew:
        models["never_knew"] = operation.never_knew
    people = frozenset(run.resolve(operation.requests[cell.request - 1]))
    theirs = {name: _about(run, stage, people) for name, stage in models.items()}
    # The model that never learned them is in a column of its own.
    others = dict.fromkeys(
        one.cell
        for one in results.results
        if one.cell.condition not in (PLAIN, RETAIN_MODEL)
        and replace(one.cell, condition=PLAIN) in (before, cell)
    )
    return {
        "readings": [
            {
                "measure": measure,
                **{name: _number(found.get(measure)) for name, found in theirs.items()},
            }
            for measure in (_LATENT, *READINGS, "mentions")
        ],
        "conditions": [
            {
                "condition": one.condition,
                "measure": _LATENT,
                "after": _number(_find(results, one, "forget", _LATENT)),
            }
            for one in others
        ],
        "others": [
            {
                "set": name,
                "measure": "accuracy",
                "before": _number(_find(results, before, name, "accuracy")),
                "after": _number(_find(results, cell, name, "accuracy")),
            }
            for name in ("retain", "unseen", "general")
        ],
    }


def _about(run: FinishedRun, stage: str, people: frozenset[str]) -> dict[str, Measurement]:
    """Return what a score stage says of these people, both modalities together, by measure."""
    asked = read_predictions(run.folder_of(stage) / PREDICTIONS)
    theirs = [one for one in asked if one.individual in people]
    judged = score_all(theirs, parser=run.inputs.experiment.scoring.parser)
    found = people_measures(by_question(theirs, judged), sets={"asked": people})
    return {one.measure: one for one in found if one.modality == ALL}


def _find(results: RunRecord, cell: Cell, name: str, measure: str) -> Measurement | None:
    wanted = (name, "all", measure)
    for one in results.results:
        of = one.measurement
        if one.cell == cell and (of.set, of.modality, of.measure) == wanted:
            return of
    return None


def _number(one: Measurement | None) -> dict[str, Any]:
    if one is None or one.value is None:
        return {"value": None, "reason": one.reason if one else "not asked"}
    told = {"value": one.value, "low": one.low, "high": one.high, "reason": one.reason}
    found: dict[str, Any] = rounded(told)
    return {**found, "questions": one.questions, "people": one.individuals}


def _other_verdicts(run: FinishedRun, cell: Cell) -> list[dict[str, str]]:
    """Return the verdicts under other conditions, which a report's own verdicts leave out."""
    found = json.loads((run.folder / "results.json").read_text(encoding="utf-8"))
    wanted = {name: getattr(cell, name) for name in ("scenario", "method", "scope", "seed")}
    wanted["request"] = cell.request
    return [
        {"condition": one["condition"], "word": one["word"], "why": one["why"]}
        for one in found["verdicts"]
        if one["condition"] != PLAIN and all(one[name] == value for name, value in wanted.items())
    ]


def _not_tested(run: FinishedRun) -> Iterator[str]:
    """Yield what this run could have tested and did not, then what no run here tests."""
    experiment = run.inputs.experiment
    scoring, usual = experiment.scoring, ScoringSettings()
    if scoring.people != usual.people and scoring.people == "vanilla":
        yield "questions about people in every order of the options (scoring.people)"
    if scoring.words == "none":
        yield "questions in words, without options (scoring.words)"
    for name, _ in EVALUATIONS:
        if name not in experiment.evaluations:
            yield f"{name.replace('_', ' ')} (evaluations.{name})"
    yield "other wordings, other languages, other pictures, and people related to these"
    if len(experiment.seeds) == 1:
        yield "other seeds of the same operation"


def products_of(run: FinishedRun) -> tuple[str, ...]:
    """Return the products of the run that a certificate rests on."""
    return (*_PRODUCTS, *((LEDGER,) if run.inputs.requests else ()))


def _files(run: FinishedRun, operation: Operation) -> dict[str, str]:
    """Return the SHA-256 of every file of the run that the certificate rests on."""
    asked = (operation.before, operation.after, operation.never_knew)
    stages = dict.fromkeys((*operation.chain, *filter(None, asked)))
    found = {name: sha256_file(run.folder / name) for name in products_of(run)}
    for stage in stages:
        folder = run.folder_of(stage)
        at = folder.relative_to(run.folder).as_posix()
        found[f"{at}/{MANIFEST}"] = sha256_file(folder / MANIFEST)
        files: Mapping[str, Any] = read_manifest(folder).files
        found |= {f"{at}/{path}": entry.sha256 for path, entry in files.items()}
    return dict(sorted(found.items()))
