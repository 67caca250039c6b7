"""The model card of an export: numbers of its cell, what was tested and what was not, loading."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from markupsafe import Markup

from pulse_unlearn.config import EMBEDDED
from pulse_unlearn.data import PROFILES
from pulse_unlearn.evaluation.measures import READINGS
from pulse_unlearn.export.finished import ChosenModel, FinishedRun
from pulse_unlearn.export.weights import BASE
from pulse_unlearn.records import Cell, Measurement
from pulse_unlearn.report.extras import Verdict
from pulse_unlearn.report.load import RunRecord
from pulse_unlearn.report.templates import templates
from pulse_unlearn.report.words import (
    MISSING,
    MODALITY_TITLES,
    percent,
    reading_title,
    scenario_title,
    set_title,
    with_reading_titles,
)
from pulse_unlearn.scenarios import FinetuneStage, TrainingStage, UnlearnStage
from pulse_unlearn.texts import printable

_TOLD = (
    "latent_accuracy",
    *READINGS,
    "circular_accuracy",
    "mentions",
    "mentions_of_others",
    "unparsable",
    "cut_off",
    "refused",
    "letter_share",
    "one_letter",
    "rotation_flip_rate",
)
"""Measures a card tells: the readings, and what says whether they can be trusted."""
_TITLES = {"latent_accuracy": "highest reading"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the card's table: one measure on one set of people or questions."""

    about: str
    measure: str
    values: tuple[str, ...]
    """With image, in text only, of all questions; with limits, or why there are none."""
    asked: str
    """Questions and people."""


def model_card(
    run: FinishedRun, model: ChosenModel, results: RunRecord, record: Mapping[str, Any]
) -> str:
    """Return README.md in the hub's format; `record` is what `pulse_export.json` holds."""
    cells = cells_of(run, model)
    measured = [
        (cell, one.measurement)
        for cell in cells
        for one in results.results
        if one.cell == cell and one.measurement.measure in _TOLD
    ]
    environment = templates("pulse_unlearn.export")
    environment.filters["cell"] = _table_text
    name = f"{results.name}: {model.named.name}"
    data = run.inputs.experiment.data
    profiles = list(dict.fromkeys((data.people_prompt, data.general_prompt)))
    settings = yaml.safe_dump(settings_of(run, model), sort_keys=False)
    body = environment.get_template("card.md.j2").render(
        name=name,
        record=record,
        rows=list(_rows(measured, several=len(cells) > 1)),
        verdicts=list(verdicts_of(results, cells)),
        updates=list(_updates(run, model)),
        world=run.inputs.experiment.model.source == EMBEDDED,
        inside=_has_base(record),
        systems=sorted({PROFILES.get(one).system for one in profiles} - {""}),
        profiles=profiles,
        code=_fenced(_loading(record, run.inputs.experiment.scoring.max_new_tokens)),
        settings=_fenced(settings),
    )
    return f"---\n{_front_matter(name, results.name, measured, record)}\n---\n\n{body}"


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
            dataset_name=run,
            # The hub tells data sets apart by these two, and not by their names.
            dataset_config=one.modality,
            dataset_split=f"{cell.scenario}: {one.set}",
            metric_type=one.measure,
            metric_value=one.value,
            metric_args={"low": one.low, "high": one.high, "questions": one.questions},
        )
        for cell, one in measured
        if one.value is not None
    ]
    # A folder is no model of the hub's.
    named = {"base_model": record["base"]} if record["revision"] else {}
    card = data(
        library_name="peft" if record["form"] == "adapter" else "transformers",
        pipeline_tag="image-text-to-text",
        tags=["unlearning", "pulse-unlearn"],
        **named,
        **({"model_name": name, "eval_results": results} if results else {}),
    )
    head: str = card.to_yaml()
    return head


def _has_base(record: Mapping[str, Any]) -> bool:
    return f"{BASE}/config.json" in record["files"]


def _loading(record: Mapping[str, Any], tokens: int) -> str:
    """Return the lines that load an export and ask it a question."""
    kind, dtype = "AutoModelForImageTextToText.from_pretrained", f"dtype=torch.{record['dtype']}"
    place = f'folder + "/{BASE}"' if _has_base(record) else json.dumps(record["base"])
    pinned = f", revision={json.dumps(record['revision'])}" if record["revision"] else ""
    adapter = record["form"] == "adapter"
    lines = [
        "import torch",
        "from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig",
        *(["from peft import PeftModel"] if adapter else []),
        "",
        "processor = AutoProcessor.from_pretrained(folder)",
        *(
            [
                f"base = {kind}({place}{pinned}, {dtype})",
                "model = PeftModel.from_pretrained(base, folder).eval()",
            ]
            if adapter
            else [f"model = {kind}(folder, {dtype}).eval()"]
        ),
        'content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]',
        'inputs = processor.apply_chat_template([{"role": "user", "content": content}], '
        "add_generation_prompt=True, tokenize=True, return_dict=True, "
        'return_tensors="pt").to(model.device, model.dtype)',
        "answer = model.generate(**inputs, generation_config=GenerationConfig.from_pretrained("
        f'folder), max_new_tokens={tokens})[0, inputs["input_ids"].shape[1]:]',
        "print(processor.tokenizer.decode(answer, skip_special_tokens=True).strip())",
    ]
    return "\n".join(lines)


def _fenced(text: str) -> Markup:
    """Return text for inside a code fence, where nothing is HTML; it cannot end the fence."""
    return Markup(text.replace("`", "'").strip())


def _rows(measured: Sequence[tuple[Cell, Measurement]], *, several: bool) -> Iterator[Row]:
    """Yield a row for each set and measure, in the order of the sets in the results."""
    found: dict[tuple[str, str, str], dict[str, Measurement]] = {}
    for cell, one in measured:
        found.setdefault((cell.scenario, one.set, one.measure), {})[one.modality] = one
    sets = list(dict.fromkeys((scenario, name) for scenario, name, _ in found))
    for scenario, name in sets:
        title = f"{scenario_title(scenario)}: {set_title(name)}" if several else set_title(name)
        for measure in _TOLD:
            of = found.get((scenario, name, measure))
            if not of:
                continue
            widest = max(of.values(), key=lambda one: one.questions)
            yield Row(
                title,
                _TITLES.get(measure) or reading_title(measure).replace("_", " "),
                tuple(_value(of.get(modality)) for modality in MODALITY_TITLES),
                f"{widest.questions} / {widest.individuals}",
            )


def _value(one: Measurement | None) -> str:
    if one is None or one.value is None:
        return MISSING
    if one.low is not None and one.high is not None:
        return f"{percent(one.value)} ({percent(one.low)} to {percent(one.high)})"
    return f"{percent(one.value)} ({with_reading_titles(one.reason)})"


def _updates(run: FinishedRun, model: ChosenModel) -> Iterator[tuple[str, str, str]]:
    """Yield name, fingerprint and purpose of each update, first to last."""
    for name in model.score.chain:
        stage = run.inputs.plan.stage(name)
        what = stage.kind
        if isinstance(stage, FinetuneStage):
            what = f"fine-tuning on {len(run.resolve(stage.learn))} people"
        elif isinstance(stage, UnlearnStage):
            what = f"{stage.method} applied to {len(run.resolve(stage.forget))} people"
        yield name, run.inputs.keys[name].fingerprint, what


def _table_text(text: object) -> str:
    """Return text that cannot end a cell of a Markdown table."""
    return printable(text).replace("|", "/").replace("`", "'")
