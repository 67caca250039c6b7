"""The model card of an export: numbers of its cell, what was tested and what was not, loading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from pulse_unlearn.evaluation.measures import READINGS
from pulse_unlearn.export.finished import ChosenModel, FinishedRun
from pulse_unlearn.export.weights import BASE
from pulse_unlearn.records import Cell, Measurement
from pulse_unlearn.report.extras import Verdict
from pulse_unlearn.report.load import RunRecord
from pulse_unlearn.report.words import (
    MODALITY_TITLES,
    percent,
    printable,
    reading_title,
    scenario_title,
    set_title,
)
from pulse_unlearn.scenarios import FinetuneStage, TrainingStage, UnlearnStage

TOLD = ("latent_accuracy", *READINGS, "circular_accuracy", "mentions")
GAUGES = ("unparsable", "cut_off", "refused", "letter_share", "one_letter", "rotation_flip_rate")
"""Measures a card tells: the readings, and what says whether they can be trusted."""
TITLES = {"latent_accuracy": "highest reading"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the card's table."""

    about: str
    modality: str
    measure: str
    value: str
    limits: str
    asked: str


def model_card(
    run: FinishedRun, model: ChosenModel, results: RunRecord, record: Mapping[str, Any]
) -> str:
    """Return README.md in the hub's format; `record` is what `pulse_export.json` holds."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    cells = cells_of(run, model)
    measured = [
        (cell, one.measurement)
        for cell in cells
        for one in results.results
        if one.cell == cell and one.measurement.measure in (*TOLD, *GAUGES)
    ]
    environment = Environment(
        loader=PackageLoader("pulse_unlearn.export", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _table_text
    name = f"{results.name}: {model.named.name}"
    body = environment.get_template("card.md.j2").render(
        name=name,
        record=record,
        rows=[_row(cell, one, several=len(cells) > 1) for cell, one in measured],
        verdicts=list(verdicts_of(results, cells)),
        updates=list(_updates(run, model)),
        device=run.inputs.experiment.model,
        inside=record["form"] == "adapter" and f"{BASE}/config.json" in record["files"],
        base_folder=BASE,
        tokens=run.inputs.experiment.scoring.max_new_tokens,
    )
    # Code is no HTML: inside its fences nothing is escaped, and nothing there can end them.
    settings = yaml.safe_dump(settings_of(run, model), sort_keys=False, allow_unicode=False)
    head = _front_matter(name, results.name, measured, record)
    return f"---\n{head}\n---\n\n{body}\n````yaml\n{settings.replace('`', chr(39))}````\n"


def cells_of(run: FinishedRun, model: ChosenModel) -> list[Cell]:
    """Return the parts of the experiment whose numbers are this model's, one for each scenario."""
    found = [one.cell for one in run.inputs.plan.evaluations if one.scores == model.score.name]
    # A model before unlearning is measured once for every method, with the same answers.
    first = {(cell.scenario, cell.seed, cell.request, cell.condition): cell for cell in found[::-1]}
    return list(first.values())[::-1]


def verdicts_of(results: RunRecord, cells: Sequence[Cell]) -> Iterator[Verdict]:
    """Yield the verdicts on these cells."""
    plain = {
        (cell.scenario, cell.method, cell.scope, cell.seed, cell.request)
        for cell in cells
        if cell.condition == "plain"
    }
    for one in results.extras.verdicts:
        if (one.scenario, one.method, one.scope, one.seed, one.request) in plain:
            yield one


def settings_of(run: FinishedRun, model: ChosenModel) -> dict[str, Any]:
    """Return the settings that made the model; no paths, which name machines and users."""
    experiment = run.inputs.experiment
    chain = [run.inputs.plan.stage(name) for name in model.score.chain]
    found: dict[str, Any] = {
        "model": experiment.model.model_dump(
            mode="json", include={"dtype", "attention", "frozen_adapters", "image_aspect"}
        ),
        "scoring": experiment.scoring.model_dump(mode="json"),
    }
    for stage in chain:
        if isinstance(stage, TrainingStage):
            found[stage.name] = {
                **(
                    {"method": stage.method, "settings": dict(stage.method_settings)}
                    if isinstance(stage, UnlearnStage)
                    else {}
                ),
                **stage.settings.model_dump(mode="json"),
            }
    return found


def _front_matter(
    name: str,
    run: str,
    measured: Sequence[tuple[Cell, Measurement]],
    record: Mapping[str, Any],
) -> str:
    data: Any = ModelCardData
    results = [
        EvalResult(
            task_type="visual-question-answering",
            dataset_type="pulse",
            dataset_name=f"{run}, {cell.scenario}: {one.set}",
            dataset_config=one.modality,
            metric_type=one.measure,
            metric_value=one.value,
            metric_args={"low": one.low, "high": one.high, "questions": one.questions},
        )
        for cell, one in measured
        if one.value is not None
    ]
    # A copy of the base inside the folder is no model of the hub's.
    named = {} if record["files"].get(f"{BASE}/config.json") else {"base_model": record["base"]}
    card = data(
        library_name="peft" if record["form"] == "adapter" else "transformers",
        pipeline_tag="image-text-to-text",
        tags=["unlearning", "pulse-unlearn"],
        **named,
        **({"model_name": name, "eval_results": results} if results else {}),
    )
    head: str = card.to_yaml()
    return head


def _row(cell: Cell, one: Measurement, *, several: bool) -> Row:
    about = set_title(one.set)
    if several:
        about = f"{scenario_title(cell.scenario)}: {about}"
    limits = one.reason
    if one.low is not None and one.high is not None:
        limits = f"{percent(one.low)} to {percent(one.high)}"
    return Row(
        about,
        MODALITY_TITLES.get(one.modality, printable(one.modality, 40)),
        TITLES.get(one.measure) or reading_title(one.measure).replace("_", " "),
        percent(one.value),
        limits,
        f"{one.questions} / {one.individuals}",
    )


def _updates(run: FinishedRun, model: ChosenModel) -> Iterator[tuple[str, str, str]]:
    """Yield name, fingerprint and purpose of each update, first to last."""
    for name in model.score.chain:
        stage = run.inputs.plan.stage(name)
        what = stage.kind
        if isinstance(stage, FinetuneStage):
            what = f"fine-tuning on {len(stage.learn.ids)} people"
        elif isinstance(stage, UnlearnStage):
            what = f"{stage.method} applied to {len(run.resolve(stage.forget))} people"
        yield name, run.inputs.keys[name].fingerprint, what


def _table_text(text: object) -> str:
    """Return text that cannot end a cell of a Markdown table."""
    return printable(text).replace("|", "/").replace("`", "'")
