"""Invented verdicts, findings and numbers over seeds for synthetic runs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

Row = dict[str, Any]

BOTH, LLM = "projector+llm", "llm"
ONE_LETTER = ("pretrained", "GA", BOTH)
"""Says D to everything and knows 98 %: what must never be called forgotten."""

WORDS = {
    ("finetuned", "GA", BOTH): ("one letter",),
    ("finetuned", "GA", LLM): ("not recovered",),
    ("finetuned", "GA+KLR", BOTH): ("suppressed", "one letter", "suppressed"),
    ("finetuned", "NPO", BOTH): ("remembered",),
    ONE_LETTER: ("one letter",),
    ("pretrained", "GA+KLR", BOTH): ("remembered",),
    ("pretrained", "NPO", BOTH): ("avoids",),
    ("sustainability", "GA", BOTH): ("output broken",),
    ("sustainability", "GA+KLR", BOTH): ("suppressed",),
    ("sustainability", "NPO", BOTH): ("output broken",),
}
"""The word by seed, going round."""
NOTHING_ABOVE = frozenset({"avoids", "not recovered", "unknown"})
"""Words of cells in which no reading stands above chance."""
READINGS = (
    "accuracy",
    "rotated_accuracy",
    "words_accuracy",
    "words_per_token_accuracy",
    "words_named",
)
_T = {2: 12.706, 3: 4.303}
"""95 % t quantiles by number of seeds."""


def word_of(cell: Row) -> str:
    words = WORDS[str(cell["scenario"]), str(cell["method"]), str(cell["scope"])]
    return words[int(str(cell["seed"])) % len(words)]


def verdicts(
    cells: Sequence[Row], rows: Sequence[Row], people: Mapping[str, tuple[int, int]]
) -> list[Row]:
    """Return the verdict of every cell after unlearning that has rows."""
    found = []
    values = {
        (
            tuple(row[k] for k in ("scenario", "method", "scope", "seed", "request")),
            row["measure"],
        ): row["value"]
        for row in rows
        if (row["set"], row["modality"], row["condition"]) == ("forget", "all", "plain")
    }
    for cell in cells:
        key = tuple(cell[k] for k in ("scenario", "method", "scope", "seed", "request"))
        if not cell["request"] or (key, "accuracy") not in values:
            continue
        few = people[str(cell["scenario"])][0] < 10
        word = "unknown" if few else word_of(cell)
        known = word not in NOTHING_ABOVE
        rotated = values[key, "rotated_accuracy"]
        why = f"rotated_accuracy {rotated or 0:.0%}" if known else "none stands above chance"
        tests = [
            {"reading": name, "value": values[key, name], "low": None, "high": None,
             "chance": 0.25, "p_above": 0.0001 if known else 0.5, "p_below": 1.0,
             "above_chance": known and name != "accuracy"}
            for name in (*READINGS, "mentions") if values[key, name] is not None
        ]  # fmt: skip
        letter = {"letter": "D", "value": 1.0, "one_letter": word == "one letter"}
        told = {"word": word, "why": f"{word}: {why}", "remembered": known}
        found.append({**cell, **told, "readings": tests, "letter": letter})
    return found


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    names = ("scenario", "method", "scope", "request", "condition", "set", "modality", "measure")
    groups: dict[tuple[object, ...], list[float]] = {}
    for row in rows:
        found = groups.setdefault(tuple(row[name] for name in names), [])
        found += [float(str(row["value"]))] if row["value"] is not None else []
    return [
        {**dict(zip(names, key, strict=True)), **_over(found, top=_top(str(key[-1])))}
        for key, found in groups.items()
    ]


def _top(measure: str) -> float:
    return 1e9 if "_pct" in measure else 1.0


def _over(values: Sequence[float], *, top: float = 1e9) -> Row:
    """Return mean, t interval and spread; fractions, whose `top` is 1, stay within 0 and 1."""
    if len(values) < 2:
        one = values[0] if values else None
        return {"value": one, "low": None, "high": None, "spread": None, "count": len(values),
                "reason": "one run"}  # fmt: skip
    mean, spread = fmean(values), stdev(values)
    half = _T[len(values)] * spread / len(values) ** 0.5
    bottom = 0.0 if top == 1.0 else -top
    ends = {"low": max(mean - half, bottom), "high": min(mean + half, top)}
    return {"value": mean, **ends, "spread": spread,
            "count": len(values), "reason": ""}  # fmt: skip


def contrast(label: str, seeds: Sequence[int], value: float) -> Row:
    """Return a contrast that every seed shows, judged by the rule of three."""
    generator = random.Random(repr(label) + str(value))
    gaps = {seed: value + generator.gauss(0, 0.01) for seed in seeds}
    settled = "too few runs" if len(seeds) < 3 else "seen" if value > 0.05 else "not settled"
    by_seed = [
        {"seed": seed, "value": gap, "low": gap - 0.04, "high": gap + 0.04,
         "p_value": 0.001 if settled == "seen" else 0.4}
        for seed, gap in gaps.items()
    ]  # fmt: skip
    return {"label": label, "settled": settled, **_over(list(gaps.values())), "by_seed": by_seed}


def paper_findings(methods: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """Return the four findings: the first stands in the paper's reading alone."""
    sizes = {"pretrained_costs": (0.25, 0.01), "not_lasting": (0.2, -0.3),
             "text_harder": (0.02, 0.01), "llm_hurts": (0.2, 0.18)}  # fmt: skip
    found = []
    for name, pair in sizes.items():
        for reading, size in zip(READINGS[:2], pair, strict=True):
            labels = ("GA",) if name == "llm_hurts" else methods
            labels = [f"{one}, finetuned" if name == "text_harder" else one for one in labels]
            contrasts = [contrast(label, seeds, size) for label in labels]
            settled = {str(one["settled"]) for one in contrasts} or {"not tested"}
            together = settled.pop() if len(settled) == 1 else "not settled"
            one = {"name": name, "reading": reading, "settled": together, "contrasts": contrasts}
            found.append(one)
    return found


def comparisons(
    scenarios: Sequence[str], methods: Sequence[str], seeds: Sequence[int]
) -> list[Row]:
    return [
        {"scenario": scenario, "set": of_set, "measure": reading,
         **contrast(" - ".join(pair), seeds, -0.02)}
        for scenario in scenarios
        for of_set in ("forget", "general")
        for pair in combinations(methods, 2)
        for reading in READINGS[:2]
    ]  # fmt: skip
