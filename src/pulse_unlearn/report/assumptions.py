"""What the paper leaves open, and what this run used instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulse_unlearn.texts import printable

_MOST_SETTINGS = 8


@dataclass(frozen=True, slots=True)
class _Open:
    topic: str
    reading: str
    """What speaks for a choice, or what others do."""
    settings: tuple[str, ...]
    """Regular expressions over dotted setting names."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """One open point of the paper with the settings that close it here."""

    topic: str
    reading: str
    used: tuple[tuple[str, str], ...]


_OPEN: tuple[_Open, ...] = (
    _Open(
        "LoRA rank, alpha, dropout",
        "LLaVA's own recipe is rank 128, alpha 256; MLLMU-Bench uses 16, 16, 0.05. Whether the "
        "pre-trained scenario used LoRA at all is not said.",
        (r"(^|\.)lora\.",),
    ),
    _Open(
        "Optimiser: rate, batch, schedule, clipping",
        "Not given. The rate decides how far an ascent goes.",
        (r"optimiser\.(?!micro)", r"learning_rate$", r"\.lr$"),
    ),
    _Open(
        "When to stop",
        "Not given. Methods stopped at different points are not comparable at their last number.",
        (r"stop\.", r"target_accuracy$", r"target_forgetting$", r"epochs$"),
    ),
    _Open(
        "GA+KLR: weight, direction, data",
        "The paper keeps the model close to the original and cites LLMU; on which data is open.",
        (r"^methods\.[^.]*klr[^.]*\.settings\.", r"klr", r"kl_weight", r"general_share$"),
    ),
    _Open(
        "NPO: beta, retain term",
        "beta 0.1, 0.4 and 0.9 are all in use. With one-letter answers beta acts otherwise than "
        "with long ones.",
        (r"^methods\.[^.]*npo[^.]*\.settings\.", r"beta"),
    ),
    _Open(
        "Reference model inside NPO and KL, adapter across requests",
        "Original model or the one before this request; a fresh adapter or a continued one.",
        (r"reference$", r"\.adapter$"),
    ),
    _Open(
        "Fine-tuning material",
        "Multiple-choice pairs or free text; other data mixed in or not; which 100 people.",
        (r"forms$", r"finetune\.individuals$", r"replay$"),
    ),
    _Open(
        "Which celebrities count as known",
        "The paper keeps 45 of 153 on whom the model scores high; top 45 or a threshold is open. "
        "Choosing on the scored questions would favour regression to the mean.",
        (r"candidates$", r"select_on$"),
    ),
    _Open(
        "Prompt, decoding, answer parser",
        "Accuracies of exactly 0 at 25 % chance mean that answers were generated freely and "
        "unreadable ones counted as wrong.",
        (r"prompt", r"parser$", r"decided_by$", r"max_new_tokens$", r"answer_tokens$"),
    ),
    _Open(
        "MMBench: plain or circular",
        "75.1 before unlearning fits plain accuracy (circular is 67.7 for the 13B model).",
        (r"scoring\.general$", r"general_questions$", r"data\.general\."),
    ),
    _Open(
        "Who is scored after request k",
        "Most likely all of D_unlearn. Here: all, and separately those already, just and not yet "
        "requested.",
        (r"sustainability\.",),
    ),
    _Open("Seeds and number of runs", "Not given.", (r"^seeds",)),
)


def assumptions(experiment: Mapping[str, Any]) -> list[Assumption]:
    """Return every open point with the settings of this experiment that answer it."""
    flat = flatten(experiment)
    return [
        Assumption(
            entry.topic,
            entry.reading,
            tuple(
                (printable(name, 80), printable(value, 80))
                for name, value in flat
                if any(re.search(pattern, name) for pattern in entry.settings)
                and not _repeats(name, value, flat)
            )[:_MOST_SETTINGS],
        )
        for entry in _OPEN
    ]


def flatten(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, text) in file order; lists of plain values stay."""
    if isinstance(value, dict) and value:
        return [
            pair
            for name, inner in value.items()
            for pair in flatten(inner, f"{prefix}.{name}" if prefix else str(name))
        ]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [
            pair
            for position, inner in enumerate(value)
            for pair in flatten(inner, f"{prefix}.{position}")
        ]
    if isinstance(value, list):
        return [(prefix, ", ".join(_text(item) for item in value))]
    return [(prefix, _text(value))]


def _repeats(name: str, value: str, flat: list[tuple[str, str]]) -> bool:
    """Tell whether a method's setting only repeats the general one: `methods.x.unlearn.y`."""
    parts = name.split(".", 2)
    return len(parts) == 3 and parts[0] == "methods" and (parts[2], value) in flat


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "{}" if value == {} else str(value)
