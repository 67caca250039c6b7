"""What a run is read by: record, results, scores, samples and the index, from finished stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from pulse_unlearn.config import Experiment
from pulse_unlearn.evaluation.parsers import PARSERS
from pulse_unlearn.evaluation.table import write_scores
from pulse_unlearn.evaluation.verdicts import ForgettingVerdict
from pulse_unlearn.pipeline.arms import arm_contrasts
from pulse_unlearn.pipeline.asked import words_notes
from pulse_unlearn.pipeline.findings import comparisons, paper_findings, sequences_against_one_shot
from pulse_unlearn.pipeline.leaks import (
    leak_notes,
    sides_of,
)
from pulse_unlearn.pipeline.ledger import Line, ledger_entries, write_ledger
from pulse_unlearn.pipeline.record import is_recorded, write_record
from pulse_unlearn.pipeline.results import (
    Findings,
    collect_flags,
    compute_results,
    compute_verdicts,
    resolved_sets,
    write_results,
)
from pulse_unlearn.pipeline.samples import collect_samples
from pulse_unlearn.pipeline.work import Pipeline
from pulse_unlearn.records import Cell
from pulse_unlearn.registry import third_parties
from pulse_unlearn.scenarios import ScoreStage
from pulse_unlearn.store import file_errors, write_index, write_json
from pulse_unlearn.store.products import code_digest, drop_index, made_before, note_made, products
from pulse_unlearn.store.stages import is_stage_name

RECORD = ".results.json"
"""What results, scores and samples were made from; without it they are made again."""
_MADE = ("ledger.", "results.", "samples.", "scores/")
_READING = ("pulse_unlearn.parsers", "pulse_unlearn.measures")
"""Entry points that stored answers are read by."""


def write_products(pipeline: Pipeline) -> bool:
    """Write record, results, scores, samples and the index from finished stages.

    Nothing is written where the last ones were made of the same stages by the same code, or where
    no operation is left to measure; tell whether there are any.
    """
    inputs, run = pipeline.inputs, pipeline.run
    record = pipeline.record()
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
    if made_before(run / RECORD, made_from) is None or not is_recorded(run, record):
        # Without an index nothing vouches for what is about to change, whenever it is cut off.
        drop_index(run)
        write_record(run, record)
        _make_products(pipeline)
        made = [name for name in products(run) if name.startswith(_MADE)]
        note_made(run / RECORD, made_from, made)
    write_index(run)
    return True


def _make_products(pipeline: Pipeline) -> None:
    evidence, run = pipeline.evidence(), pipeline.run
    verdicts = compute_verdicts(evidence)
    sides = sides_of(evidence.plan.operations, evidence.resolve)
    findings = Findings(
        verdicts,
        collect_flags(evidence, verdicts),
        paper_findings(evidence),
        [*comparisons(evidence), *sequences_against_one_shot(evidence)],
        arm_contrasts(evidence),
        pipeline.selections(),
        pipeline.matches(),
        resolved_sets(evidence),
        [
            *pipeline.inputs.notes,
            *pipeline.match_notes(),
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


def _entries(pipeline: Pipeline, verdicts: Mapping[Cell, ForgettingVerdict]) -> list[Line]:
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


def _write_scores(pipeline: Pipeline) -> None:
    """Write the verdict on every answer, a file per score stage; files of older plans go."""
    folder = pipeline.run / "scores"
    with file_errors(folder, "make room for the scores"):
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            if old.suffix == ".parquet" and is_stage_name(old.stem):
                old.unlink()
    for stage in pipeline.inputs.plan.stages:
        if isinstance(stage, ScoreStage):
            name = pipeline.folder_of(stage.name).name
            write_scores(folder / f"{name}.parquet", pipeline.answers_of(stage.name))
