"""Writes a run folder with invented numbers, for tests of rooms that read finished runs.

Every number here is made up (smooth curves plus seeded noise). No model was run.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pulse_unlearn.records import RESULT_COLUMNS
from synthetic_samples import HOSTILE, make_samples

METHODS = ("GA", "GA+KLR", "NPO")
REQUESTS = {"finetuned": 1, "pretrained": 1, "sustainability": 5}
PEOPLE = {"finetuned": (50, 50), "pretrained": (20, 25), "sustainability": (50, 50)}
GENERAL_QUESTIONS = 320

# Invented accuracy after the last request, in percent:
# forget multimodal, forget text, retain multimodal, retain text, general.
BEFORE = {
    "finetuned": (81, 79, 77, 80, 84),
    "pretrained": (92, 94, 90, 93, 85),
    "sustainability": (80, 79, 77, 80, 84),
}
AFTER = {
    ("finetuned", "GA", "projector+llm"): (11, 34, 17, 33, 70),
    ("finetuned", "GA", "llm"): (27, 31, 33, 38, 52),
    ("finetuned", "GA+KLR", "projector+llm"): (19, 33, 29, 44, 78),
    ("finetuned", "NPO", "projector+llm"): (20, 38, 31, 45, 77),
    ("pretrained", "GA", "projector+llm"): (6, 48, 8, 55, 12),
    ("pretrained", "GA+KLR", "projector+llm"): (9, 41, 14, 58, 49),
    ("pretrained", "NPO", "projector+llm"): (13, 43, 20, 60, 31),
    ("sustainability", "GA", "projector+llm"): (0, 1, 1, 4, 1),
    ("sustainability", "GA+KLR", "projector+llm"): (2, 4, 6, 14, 17),
    ("sustainability", "NPO", "projector+llm"): (0, 2, 1, 3, 2),
}


@dataclass(frozen=True)
class Recipe:
    """What to put into the synthetic run."""

    scenarios: Sequence[str] = ("finetuned", "pretrained", "sustainability")
    methods: Sequence[str] = METHODS
    seeds: Sequence[int] = (0,)
    drop: Sequence[tuple[str, str]] = ()
    """(scenario, method) cells that are planned but have no results."""
    hostile: bool = False
    samples: int = 24
    people: dict[str, tuple[int, int]] = field(default_factory=lambda: dict(PEOPLE))


def write_run(run: Path, recipe: Recipe | None = None) -> Path:
    """Write the whole folder and return it."""
    recipe = recipe or Recipe()
    run.mkdir(parents=True, exist_ok=True)
    cells = _cells(recipe)
    rows: list[dict[str, object]] = []
    flags: list[dict[str, object]] = []
    for cell in cells:
        if (cell["scenario"], cell["method"]) in recipe.drop:
            continue
        rows += _rows(cell, recipe)
        flags += _flags(cell)
    _write_results(run, rows, flags, recipe)
    _write_plan(run, cells, recipe)
    samples = make_samples(
        recipe.scenarios, recipe.methods, count=recipe.samples, hostile=recipe.hostile
    )
    (run / "samples.json").write_text(json.dumps(samples), encoding="utf-8")
    (run / "experiment.yaml").write_text(_experiment(recipe), encoding="utf-8")
    environment = {
        "python": "3.11.9",
        "platform": "Linux (synthetic)",
        "packages": {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.18.0"},
        "device": "cpu, 2 threads",
        "pulse_unlearn": "0.1.0",
    }
    (run / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return run


def _cells(recipe: Recipe) -> list[dict[str, object]]:
    cells: list[dict[str, object]] = []
    for scenario in recipe.scenarios:
        for seed in recipe.seeds:
            base = {"scenario": scenario, "seed": seed}
            cells.append({**base, "method": "", "scope": "", "request": 0})
            for name, method, scope in AFTER:
                if name == scenario and method in recipe.methods:
                    for request in range(1, REQUESTS[scenario] + 1):
                        cells.append({**base, "method": method, "scope": scope, "request": request})
    return cells


def _accuracies(cell: dict[str, object]) -> list[float]:
    """Return five accuracies as fractions, with noise per seed."""
    scenario, request = str(cell["scenario"]), int(str(cell["request"]))
    before = BEFORE[scenario]
    generator = random.Random(f"{sorted(cell.items())}")
    if request == 0:
        goal: Sequence[float] = before
    else:
        after = AFTER[scenario, str(cell["method"]), str(cell["scope"])]
        part = (request / REQUESTS[scenario]) ** (0.8 if cell["method"] != "GA+KLR" else 1.3)
        goal = [b + (a - b) * part for a, b in zip(after, before, strict=True)]
    return [min(max((value + generator.gauss(0, 1.5)) / 100, 0.0), 1.0) for value in goal]


def _rows(cell: dict[str, object], recipe: Recipe) -> list[dict[str, object]]:
    scenario = str(cell["scenario"])
    forget_people, retain_people = recipe.people[scenario]
    fm, ft, rm, rt, general = _accuracies(cell)
    start = _accuracies({**cell, "method": "", "scope": "", "request": 0})
    sets = {"forget": (fm, ft, forget_people), "retain": (rm, rt, retain_people)}
    if scenario == "sustainability":
        request = int(str(cell["request"]))
        share = forget_people // 5
        if request:
            sets["just_requested"] = (fm * 0.6, ft * 0.7, share)
        if request > 1:
            sets["forgotten_earlier"] = (fm * 0.7 + 0.02, ft * 0.8 + 0.03, share * (request - 1))
        if request < 5:
            sets["not_yet_requested"] = (fm * 1.1, ft * 1.05, share * (5 - request))
        sets["celebrities"] = (rm * 0.97, rt * 0.98, 45)
    rows: list[dict[str, object]] = []
    for name, (multimodal, text, people) in sets.items():
        for modality, accuracy in (
            ("multimodal", multimodal),
            ("text_only", text),
            ("all", (multimodal + text) / 2),
        ):
            questions = people * (10 if modality == "all" else 5)
            rows += _measures(cell, name, modality, min(accuracy, 1.0), questions, people)
    rows += _measures(cell, "general", "all", general, GENERAL_QUESTIONS, 0)
    rows.append(_row(cell, "general", "all", "circular_accuracy", general * 0.86, 0.03, 320, 0))
    rows.append(_row(cell, "general", "all", "rotation_flip_rate", 0.08, None, 320, 0))
    rows.append(_row(cell, "general", "all", "letter_bias", 0.05, None, 320, 0))
    rows.append(_row(cell, "general", "all", "accuracy:counting", general * 0.9, 0.08, 60, 0))
    rows.append(_row(cell, "general", "all", "l2_accuracy:reasoning", general * 0.8, 0.06, 120, 0))
    if int(str(cell["request"])) > 0:
        rows += _relative(cell, sets, start, general)
    return rows


def _relative(
    cell: dict[str, object],
    sets: dict[str, tuple[float, float, int]],
    start: list[float],
    general: float,
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, first in (("forget", start[0:2]), ("retain", start[2:4])):
        after = sets[name]
        people = after[2]
        pairs = [
            ("multimodal", after[0], first[0]),
            ("text_only", after[1], first[1]),
            ("all", (after[0] + after[1]) / 2, (first[0] + first[1]) / 2),
        ]
        for modality, now, then in pairs:
            kept = 100 * now / then
            measure, value = ("kept_pct", kept)
            if name == "forget":
                measure, value = "forgotten_pct", 100 - kept
            rows.append(_row(cell, name, modality, measure, value, 6.0, people * 5, people))
            over = 100 * (now - 0.25) / (then - 0.25)
            over = 100 - over if name == "forget" else over
            rows.append(
                _row(cell, name, modality, f"{measure}_over_chance", over, 8.0, people * 5, people)
            )
    kept = 100 * general / start[4]
    rows.append(_row(cell, "general", "all", "kept_pct", kept, 5.0, GENERAL_QUESTIONS, 0))
    return rows


def _measures(
    cell: dict[str, object], name: str, modality: str, accuracy: float, questions: int, people: int
) -> list[dict[str, object]]:
    collapsed = accuracy < 0.08 and int(str(cell["request"])) > 0
    unparsable = 0.83 if collapsed else max(0.0, 0.18 - accuracy / 5)
    half = 0.075 if people >= 10 else None
    half = 0.04 if name == "general" else half
    values: list[tuple[str, float | None, float | None]] = [
        ("accuracy", accuracy, half),
        ("letter_accuracy", max(accuracy, 0.27), half),
        ("unparsable", unparsable, 0.03),
        ("refused", 0.01, None),
        ("chance", 0.25, None),
        ("correct_probability", None if collapsed else accuracy * 0.9 + 0.04, None),
        ("below_chance", 1.0 if accuracy < 0.18 else 0.0, None),
    ]
    return [
        _row(cell, name, modality, measure, value, half_width, questions, people)
        for measure, value, half_width in values
    ]


def _row(
    cell: dict[str, object],
    name: str,
    modality: str,
    measure: str,
    value: float | None,
    half: float | None,
    questions: int,
    people: int,
) -> dict[str, object]:
    top = 1.0 if abs(value or 0) <= 1 and "pct" not in measure else 1e9
    low = high = None
    if value is not None and half is not None:
        low, high = value - half, min(value + half, top)
        low = max(low, 0.0) if top == 1.0 else low
    reason = ""
    if value is None:
        reason = "no letter had a finite probability"
    elif half is None and measure == "accuracy":
        reason = f"n/a ({people} people)"
    return {
        **cell,
        "set": name,
        "modality": modality,
        "measure": measure,
        "value": value if value is None else round(value, 6),
        "low": low if low is None else round(low, 6),
        "high": high if high is None else round(high, 6),
        "questions": questions,
        "individuals": people,
        "reason": reason,
    }


def _flags(cell: dict[str, object]) -> list[dict[str, object]]:
    if cell["scenario"] == "sustainability" and int(str(cell["request"])) == 5:
        detail = "unparsable 83 % of D_unlearn; cross-entropy 41.2 is above 2 ln V = 12.4"
        return [{**cell, "flag": "collapsed", "detail": detail}]
    return []


def _write_results(
    run: Path, rows: list[dict[str, object]], flags: list[dict[str, object]], recipe: Recipe
) -> None:
    if recipe.hostile:
        for row in rows:
            if row["method"] == "NPO":
                row["method"] = HOSTILE.replace("\ud800", "")
        flags.append({**flags[0], "detail": HOSTILE} if flags else {"flag": HOSTILE})
    with (run / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, RESULT_COLUMNS, extrasaction="ignore", lineterminator="\n", restval=""
        )
        writer.writeheader()
        writer.writerows(rows)
    sets = {
        f"{scenario}/{seed}": {
            "forget": [f"f{i:03d}" for i in range(recipe.people[scenario][0])],
            "retain": [f"r{i:03d}" for i in range(recipe.people[scenario][1])],
            "requests": [
                [f"f{i:03d}" for i in range(k, recipe.people[scenario][0], REQUESTS[scenario])]
                for k in range(REQUESTS[scenario])
            ],
        }
        for scenario in recipe.scenarios
        for seed in recipe.seeds
    }
    content = {"version": 1, "rows": rows, "flags": flags, "sets": sets}
    (run / "results.json").write_text(json.dumps(content, allow_nan=False), encoding="utf-8")


def _write_plan(run: Path, cells: list[dict[str, object]], recipe: Recipe) -> None:
    stages: list[dict[str, object]] = []
    for cell in cells:
        kinds = ("score",) if cell["request"] == 0 else ("unlearn", "score")
        for kind in kinds:
            number = len(stages) + 1
            name = f"{cell['scenario']}/{cell['method'] or 'target'}/{cell['scope'] or 'none'}"
            name = f"{name}/s{cell['seed']}/r{cell['request']}/{kind}"
            folder = f"{number:02d}-{name.replace('/', '.')}-{number:08x}"
            stage = {**cell, "number": number, "name": name, "kind": kind, "folder": folder}
            stages.append({**stage, "parents": []})
            if kind == "unlearn" and (cell["scenario"], cell["method"]) not in recipe.drop:
                _write_curve(run / "stages" / folder, cell)
    plan = {"name": "synthetic (invented numbers)", "stages": stages}
    (run / "plan.json").write_text(json.dumps(plan), encoding="utf-8")


def _write_curve(folder: Path, cell: dict[str, object]) -> None:
    folder.mkdir(parents=True)
    generator = random.Random(f"{sorted(cell.items())}")
    lines = []
    for step in range(1, 25):
        forget = -0.3 - 0.02 * step**1.8 + generator.gauss(0, 0.1)
        entry = {"step": step, "loss": forget, "forget": forget, "lr": 3e-3, "grad_norm": 1.2}
        if cell["method"] == "GA+KLR":
            entry["kl_retain"] = 0.01 * step + abs(generator.gauss(0, 0.02))
            entry["loss"] = forget + entry["kl_retain"]
        lines.append(json.dumps({**entry, "seconds": 0.6}))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _experiment(recipe: Recipe) -> str:
    seeds = ", ".join(str(seed) for seed in recipe.seeds)
    methods = "\n".join(f"  - {{name: {name}, lr: 0.003}}" for name in recipe.methods)
    note = HOSTILE.split("\x1b")[0] if recipe.hostile else "invented numbers, no model was run"
    return f"""\
name: synthetic
note: "{note}"
model: {{source: world, dtype: float32}}
people: {{source: world}}
general: {{source: world, split: test}}
seeds: [{seeds}]
prompt_profile: short
answer_parser: strict
decoding: greedy
lora: {{rank: 16, alpha: 32, dropout: 0.0, targets: language model linear layers}}
finetune: {{lr: 0.003, epochs: 10, batch_size: 32, stop_accuracy: 0.77}}
methods:
{methods}
unlearn:
  batch_size: 40
  optimizer: adamw
  stop_forgotten: 0.7
  klr_weight: 1.0
  npo_beta: 1.0
  reference: original
"""
