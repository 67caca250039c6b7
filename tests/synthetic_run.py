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

from pulse_unlearn.records import PLAIN, RESULT_COLUMNS
from synthetic_findings import (
    BOTH,
    LLM,
    NOTHING_ABOVE,
    ONE_LETTER,
    READINGS,
    Row,
    comparisons,
    contrast,
    over_seeds,
    paper_findings,
    verdicts,
    word_of,
)
from synthetic_samples import HOSTILE, make_samples

METHODS = ("GA", "GA+KLR", "NPO")
REQUESTS = {"finetuned": 1, "pretrained": 1, "sustainability": 5}
PEOPLE = {"finetuned": (50, 50), "pretrained": (20, 25), "sustainability": (50, 50)}
GENERAL_QUESTIONS = 320
UNSEEN_PEOPLE = 25
# Invented accuracy in percent, first strict, then with the orders of the options averaged:
# forget multimodal, forget text, retain multimodal, retain text, general, unseen.
BEFORE = {
    "finetuned": ((81, 79, 77, 80, 84, 74), (85, 88, 80, 88, 85, 75)),
    "pretrained": ((92, 94, 90, 93, 85, 74), (100, 99, 99, 100, 87, 75)),
    "sustainability": ((80, 79, 77, 80, 84, 74), (85, 88, 80, 88, 85, 75)),
}
AFTER = {
    ("finetuned", "GA", BOTH): ((20, 22, 24, 26, 41, 30), (72, 76, 74, 78, 86, 64)),
    ("finetuned", "GA", LLM): ((27, 31, 33, 38, 52, 35), (30, 27, 41, 44, 60, 40)),
    ("finetuned", "GA+KLR", BOTH): ((24, 27, 29, 44, 78, 50), (60, 58, 66, 70, 84, 70)),
    ("finetuned", "NPO", BOTH): ((60, 58, 61, 65, 77, 64), (64, 66, 68, 70, 80, 70)),
    ONE_LETTER: ((28, 28, 27, 29, 20, 26), (98, 98, 97, 99, 87, 74)),
    ("pretrained", "GA+KLR", BOTH): ((41, 43, 44, 58, 55, 48), (96, 94, 97, 98, 88, 73)),
    ("pretrained", "NPO", BOTH): ((8, 9, 50, 60, 42, 44), (9, 11, 97, 98, 86, 72)),
    ("sustainability", "GA", BOTH): ((0, 1, 1, 4, 1, 2), (30, 28, 35, 33, 46, 34)),
    ("sustainability", "GA+KLR", BOTH): ((12, 14, 16, 24, 27, 20), (54, 50, 60, 62, 83, 60)),
    ("sustainability", "NPO", BOTH): ((0, 2, 1, 3, 2, 3), (28, 27, 30, 33, 58, 40)),
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
    rotated: bool = True
    words: bool = True
    """Whether questions were asked in every order, and in words; a vanilla run has neither."""
    conditions: bool = False
    """Whether a retain model was trained and the relearning attack run; not for known people."""
    each_request: bool = False
    """Whether each request of a sequence has a retain model of its own besides."""
    samples: int = 24
    people: dict[str, tuple[int, int]] = field(default_factory=lambda: dict(PEOPLE))


def write_run(run: Path, recipe: Recipe | None = None) -> Path:
    """Write the whole folder and return it."""
    recipe = recipe or Recipe()
    run.mkdir(parents=True, exist_ok=True)
    cells = _cells(recipe)
    rows: list[Row] = []
    flags: list[Row] = []
    for cell in cells:
        if (cell["scenario"], cell["method"]) in recipe.drop:
            continue
        rows += _rows(cell, recipe)
        flags += _flags(cell)
        rows += _condition_rows(cell, recipe) if recipe.conditions else []
    _write_results(run, (cells, rows, flags), recipe)
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


def _cells(recipe: Recipe) -> list[Row]:
    cells: list[Row] = []
    for scenario in recipe.scenarios:
        for seed in recipe.seeds:
            base = {"scenario": scenario, "seed": seed}
            cells.append({**base, "method": "", "scope": "", "request": 0})
            for name, method, scope in AFTER:
                if name == scenario and method in recipe.methods:
                    for request in range(1, REQUESTS[scenario] + 1):
                        cells.append({**base, "method": method, "scope": scope, "request": request})
    return cells


def _accuracies(cell: Row) -> tuple[list[float], list[float]]:
    """Return six accuracies as fractions, strict and rotated, with noise per seed."""
    scenario, request = str(cell["scenario"]), int(str(cell["request"]))
    generator = random.Random(f"{sorted(cell.items())}")
    goals = BEFORE[scenario]
    if request:
        part = (request / REQUESTS[scenario]) ** (0.8 if cell["method"] != "GA+KLR" else 1.3)
        after = AFTER[scenario, str(cell["method"]), str(cell["scope"])]
        goals = tuple(
            tuple(b + (a - b) * part for a, b in zip(later, before, strict=True))
            for later, before in zip(after, goals, strict=True)
        )
    strict, rotated = (
        [min(max((value + generator.gauss(0, 1.5)) / 100, 0.0), 1.0) for value in goal]
        for goal in goals
    )
    return strict, rotated


def _groups(cell: Row, recipe: Recipe) -> dict[str, tuple[list[float], list[float], int]]:
    """Return for each set of people (strict, rotated) with image and by name, and its size."""
    scenario, request = str(cell["scenario"]), int(str(cell["request"]))
    forget, retain = recipe.people[scenario]
    strict, rotated = _accuracies(cell)
    sets = {
        "forget": (strict[0:2], rotated[0:2], forget),
        "retain": (strict[2:4], rotated[2:4], retain),
        "unseen": ([strict[5]] * 2, [rotated[5]] * 2, UNSEEN_PEOPLE),
    }
    if scenario == "sustainability":
        share = forget // 5
        later = (
            ("just_requested", 0.7, share if request else 0),
            ("forgotten_earlier", 0.8, share * (request - 1)),
            ("not_yet_requested", 1.05, share * (5 - request)),
        )
        for name, factor, people in later:
            if people > 0:
                now = [[min(factor * v, 1.0) for v in pair] for pair in sets["forget"][:2]]
                sets[name] = (now[0], now[1], people)
    return sets


def _rows(cell: Row, recipe: Recipe) -> list[Row]:
    request = int(str(cell["request"]))
    sets = _groups(cell, recipe)
    start = _groups({**cell, "method": "", "scope": "", "request": 0}, recipe)
    strict, rotated = _accuracies(cell)
    rows: list[Row] = []
    for name, (given, turned, people) in sets.items():
        for modality, at in (("multimodal", [0]), ("text_only", [1]), ("all", [0, 1])):
            pair = (sum(given[i] for i in at) / len(at), sum(turned[i] for i in at) / len(at))
            count = people * 5 * len(at)
            rows += _measures(cell, (name, modality), pair, (count, people), recipe)
            then = start.get(name)
            if request and then:
                was = (sum(then[0][i] for i in at) / len(at), sum(then[1][i] for i in at) / len(at))
                rows += _relative(cell, (name, modality), (was, pair), people, recipe)
    general = ("general", "all")
    rows += _measures(cell, general, (strict[4], rotated[4]), (GENERAL_QUESTIONS, 0), recipe)
    for measure, factor in (("accuracy:counting", 0.9), ("l2_accuracy:reasoning", 0.8)):
        asked = 60 if factor == 0.9 else 120
        rows.append(_row(cell, general, measure, strict[4] * factor, 0.07, (asked, 0)))
    if request:
        first = _accuracies({**cell, "method": "", "scope": "", "request": 0})
        was, now = (first[0][4], first[1][4]), (strict[4], rotated[4])
        rows += _relative(cell, general, (was, now), 320, recipe)
        remembered = float(word_of(cell) not in NOTHING_ABOVE)
        rows.append(_row(cell, ("forget", "all"), "remembered", remembered, None, (1, 1)))
    return rows


def _relative(
    cell: Row,
    what: tuple[str, str],
    pairs: tuple[tuple[float, float], tuple[float, float]],
    people: int,
    recipe: Recipe,
) -> list[Row]:
    rows: list[Row] = []
    (was, was_turned), (now, now_turned) = pairs
    later = max(now, now_turned) if recipe.rotated else now
    first = max(was, was_turned) if recipe.rotated else was
    for prefix, before, after in (("", was, now), ("latent_", first, later)):
        for suffix, chance in (("", 0.0), ("_over_chance", 0.25)):
            value = 100 * (after - chance) / (before - chance)
            ratio = "forgotten_pct" if what[0] == "forget" else "kept_pct"
            value = 100 - value if what[0] == "forget" else value
            measure = f"{prefix}{ratio}{suffix}"
            rows.append(_row(cell, what, measure, value, 6.0, (people * 5, people)))
    return rows


def _measures(
    cell: Row,
    what: tuple[str, str],
    pair: tuple[float, float],
    counts: tuple[int, int],
    recipe: Recipe,
) -> list[Row]:
    strict, rotated = pair
    request, people = int(str(cell["request"])), counts[1]
    broken = strict < 0.08 and request > 0
    half = 0.04 if what[0] == "general" else 0.06 if people >= 10 else None
    one_letter = request > 0 and word_of(cell) == "one letter"
    turned = rotated if recipe.rotated else None
    in_words = rotated * 0.97 if recipe.words and what[0] != "general" else None
    values: dict[str, float | None] = {
        "accuracy": strict,
        "rotated_accuracy": turned,
        "circular_accuracy": None if turned is None else strict * 0.86,
        "words_accuracy": in_words,
        "words_per_token_accuracy": None if in_words is None else in_words * 0.98,
        "words_named": None if in_words is None else in_words * 0.9,
        "mentions": min(strict * 1.05, 1.0),
        "mentions_of_others": 0.2,
        "letter_accuracy": max(strict, 0.27),
        "unreadable": 0.83 if broken else max(0.0, 0.18 - strict / 5),
        "refused": 0.01,
        "rotation_flip_rate": None if turned is None else 0.08,
        "letter_share": 1.0 if one_letter else 0.31,
        "letter_entropy": 0.0 if one_letter else 0.97,
        "letter_bias": 0.45 if one_letter else 0.05,
        "chance": 0.25,
        "below_chance": None if turned is None else float(rotated < 0.18),
        "one_letter": float(one_letter),
    }
    best = max(
        (name for name in READINGS if values[name] is not None), key=lambda n: values[n] or 0
    )
    values["latent_accuracy"] = values[best]
    bare = {"refused", "chance", "below_chance", "one_letter", "letter_entropy", "letter_bias"}
    told = {"latent_accuracy": f"by {best}", "letter_share": "letter D, true in 26%"}
    return [
        _row(cell, what, name, value, None if name in bare else half, counts, told.get(name, ""))
        for name, value in values.items()
    ]


def _row(
    cell: Row,
    what: tuple[str, str],
    measure: str,
    value: float | None,
    half: float | None,
    counts: tuple[int, int],
    told: str = "",
) -> Row:
    top = 1.0 if "_pct" not in measure else 1e9
    low = high = None
    if value is not None and half is not None:
        low, high = value - half, min(value + half, top)
        low = max(low, 0.0) if top == 1.0 else low
    reason = told
    if value is None:
        reason = "not asked"
    elif half is None and measure == "accuracy":
        reason = f"n/a ({counts[1]} people)"
    return {
        "condition": PLAIN,
        **cell,
        "set": what[0],
        "modality": what[1],
        "measure": measure,
        "value": value if value is None else round(value, 6),
        "low": low if low is None else round(low, 6),
        "high": high if high is None else round(high, 6),
        "questions": counts[0],
        "individuals": counts[1],
        "reason": reason,
    }


def _condition_rows(cell: Row, recipe: Recipe) -> list[Row]:
    """Return the retain model's rows, and of last requests both curves of relearning."""
    scenario, request = str(cell["scenario"]), int(str(cell["request"]))
    has_control = scenario != "pretrained"
    if not request:
        return []
    rows: list[Row] = []
    if request == 1 and has_control:
        at = {**cell, "request": 0, "condition": "retain_model"}
        forget, retain = recipe.people[scenario]
        for name, pair, people in (
            ("forget", (0.27, 0.29), forget),
            ("retain", (0.76, 0.83), retain),
            ("unseen", (0.73, 0.74), UNSEEN_PEOPLE),
        ):
            for modality in ("multimodal", "text_only", "all"):
                counts = (people * (10 if modality == "all" else 5), people)
                rows += _measures(at, (name, modality), pair, counts, recipe)
        rows += _measures(at, ("general", "all"), (0.83, 0.85), (GENERAL_QUESTIONS, 0), recipe)
        rows += _relative(at, ("forget", "all"), ((0.8, 0.86), (0.27, 0.29)), forget, recipe)
        rows += _relative(at, ("retain", "all"), ((0.78, 0.84), (0.76, 0.83)), retain, recipe)
    if recipe.each_request and has_control and REQUESTS[scenario] > 1:
        at = {**cell, "condition": "retain_model"}
        level = 0.8 - 0.53 * request / REQUESTS[scenario]  # of all of D_unlearn, so far known
        forget = recipe.people[scenario][0]
        rows += _measures(at, ("forget", "all"), (level, level), (forget * 10, forget), recipe)
    if request == REQUESTS[scenario] and has_control:
        rows += _against_control(cell, recipe)
    if request == REQUESTS[scenario]:
        strict, rotated = (sum(one[:2]) / 2 for one in _accuracies(cell))
        for step in (0, 5, 10, 20, 40):
            back = 1 - 0.5 ** (step / 10)
            curves = {"": (strict + (0.7 - strict) * back, rotated + (0.8 - rotated) * back)}
            if has_control:
                curves["retain_model+"] = (0.27 + 0.1 * back, 0.28 + 0.1 * back)
            for before, pair in curves.items():
                at = {**cell, "condition": f"{before}relearned:{step}"}
                counts = (recipe.people[scenario][0] * 4, recipe.people[scenario][0])
                rows += _measures(at, ("forget", "all"), pair, counts, recipe)
    return rows


def _against_control(cell: Row, recipe: Recipe) -> list[Row]:
    """Return how far a last model is from the retain model, which knows 27 and 29 %."""
    people = recipe.people[str(cell["scenario"])][0]
    what, counts, rows = ("forget", "all"), (people * 10, people), []
    strict, rotated = (sum(one[:2]) / 2 for one in _accuracies(cell))
    outside = []
    gaps = {"accuracy": strict - 0.27, "rotated_accuracy": rotated - 0.29}
    for reading, gap in gaps.items():
        within = abs(gap) + 0.04 < 0.1
        outside += [] if within else [reading]
        measure = f"{reading}_from_never_knew"
        rows.append({**_row(cell, what, measure, gap, None, counts), "low": gap - 0.04})
        rows[-1]["high"] = gap + 0.04
        rows.append(_row(cell, what, f"{reading}_equivalent", float(within), None, counts))
    told = f"not within 10%: {', '.join(outside)}" if outside else "within 10%"
    rows.append(_row(cell, what, "like_never_known", float(not outside), None, counts, told))
    distance, chance = min(abs(rotated - 0.29) + 0.03, 1.0), 0.4 if not outside else 0.0005
    rows.append(_row(cell, what, "rotated_probability_ks", distance, None, counts))
    rows.append(_row(cell, what, "rotated_probability_ks_p", chance, None, counts))
    return rows


def _flags(cell: Row) -> list[Row]:
    request, last = int(str(cell["request"])), REQUESTS[str(cell["scenario"])]
    if not request:
        return []
    stopped = "24 steps, stopped by target_accuracy"
    found: list[Row] = [{**cell, "flag": "stopped", "detail": stopped}]
    if word_of(cell) == "output broken" and request == last:
        detail = "unparsable 83 % of D_unlearn; cross-entropy 41.2 is above 2 ln V = 12.4"
        found.append({**cell, "flag": "collapsed", "detail": detail})
        reached = "target_reached_by_unreadable_answers"
        found.append({**cell, "flag": reached, "detail": f"{stopped}; 83%"})
    if word_of(cell) == "one letter":
        said = "D in 100% of the answers that can be read"
        found.append({**cell, "flag": "one_letter", "detail": said})
        reached = "target_reached_by_one_letter"
        found.append({**cell, "flag": reached, "detail": f"{stopped}; D 100%"})
    return found


def _write_results(
    run: Path, parts: tuple[list[Row], list[Row], list[Row]], recipe: Recipe
) -> None:
    cells, rows, flags = parts
    judged = verdicts(cells, rows, recipe.people)
    if recipe.hostile:
        for row in (*rows, *judged):
            if row["method"] == "NPO":
                row["method"] = HOSTILE.replace("\ud800", "")
        flags.append({**flags[0], "flag": HOSTILE, "detail": HOSTILE})
        judged[0] |= {"word": HOSTILE, "why": HOSTILE}
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
    chosen = {"stage": "seed0/select", "candidates": 153, "forget": 20, "retain": 25, "unseen": 54,
              "perfect": 73, "lowest_chosen": 1.0,
              "decides": "strict", "questions": "other_view"}  # fmt: skip
    findings = paper_findings(recipe.methods, recipe.seeds)
    if recipe.hostile:
        findings[0]["contrasts"].append(contrast(HOSTILE, recipe.seeds, 0.1))
        chosen["stage"] = HOSTILE
    content = {
        "version": 4,
        "over_seeds": over_seeds(rows),
        "verdicts": judged,
        "paper_findings": findings,
        "comparisons": comparisons(recipe.scenarios, recipe.methods, recipe.seeds),
        "selections": [chosen],
        "flags": flags,
        "sets": sets,
        "notes": [],
    }
    (run / "results.json").write_text(json.dumps(content, allow_nan=False), encoding="utf-8")


def _write_plan(run: Path, cells: list[Row], recipe: Recipe) -> None:
    stages: list[Row] = []
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


def _write_curve(folder: Path, cell: Row) -> None:
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
