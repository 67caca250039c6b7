"""How numbers, names and intervals are written for people."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pulse_unlearn.report.estimates import Estimate, Place
from pulse_unlearn.report.paper import paper_method
from pulse_unlearn.texts import printable

SCENARIO_TITLES = {
    "finetuned": "Fine-tuned knowledge",
    "pretrained": "Pre-trained knowledge",
    "sustainability": "Sustainability",
    "requests": "Named requests",
    "audit": "Audited models",
}
ARM_TITLES = {"finetuned": "fine-tuned", "pretrained": "pre-trained"}
"""Arms of the scenario `same_checkpoint` that an experiment need not name."""
_ONE_CHECKPOINT = "same_checkpoint."
SET_TITLES = {
    "forget": "D_unlearn",
    "retain": "D_retain",
    "general": "General ability",
    "unseen": "Unseen people",
    "unseen_fictional": "Unseen fictional people",
    "other_arm": "People of the other arm",
    "forgotten_earlier": "Requested earlier",
    "just_requested": "Requested just now",
    "not_yet_requested": "Not yet requested",
    "taught": "Taught half",
}
READING_TITLES = {
    "accuracy": "strict",
    "rotated_accuracy": "rotated",
    "circular_accuracy": "circular",
    "words_accuracy": "words",
    "words_per_token_accuracy": "words per token",
    "words_named": "named in words",
    "mentions": "mentions",
}
READING_PHRASES = {
    "rotated_accuracy": "asked in every order of the options",
    "words_accuracy": "asked in words, without options",
    "words_per_token_accuracy": "asked in words, without options",
    "words_named": "asked in words, without options",
}
THE_RETAIN_MODEL = "retain model"
HIGHEST = "by the reading that finds most"
MODALITY_TITLES = {"multimodal": "with image", "text_only": "text only", "all": "all questions"}
MISSING = "–"
_PERCENT_UNITS = "_pct"


def scenario_title(name: str) -> str:
    """Return the printed name of a scenario; names of third parties are shown as they are."""
    if name.startswith(_ONE_CHECKPOINT):
        arm = name.removeprefix(_ONE_CHECKPOINT)
        return f"Same checkpoint: {ARM_TITLES.get(arm, printable(arm, 40))} people"
    return SCENARIO_TITLES.get(name, printable(name, 60))


def set_title(name: str) -> str:
    """Return the printed name of a set."""
    if match := re.fullmatch(r"request:(\d+)", name):
        return f"People of request {match[1]}"
    return SET_TITLES.get(name, printable(name.replace("_", " "), 60))


def scope_title(name: str) -> str:
    """Return the printed name of an update scope."""
    parts = {"projector": "Proj", "llm": "LLM", "vision": "Vision"}
    words = [parts.get(part, printable(part, 40)) for part in name.split("+") if part]
    return ", ".join(words) or MISSING


def reading_title(name: str) -> str:
    """Return the printed name of a reading; measures of third parties are shown as they are."""
    return READING_TITLES.get(name, printable(name, 40))


def reading_phrase(names: Sequence[str]) -> str:
    """Say inside a sentence how the highest reading asked; several names are several readings."""
    said = {READING_PHRASES.get(name, HIGHEST) for name in names}
    return said.pop() if len(said) == 1 else HIGHEST


def with_reading_titles(text: str) -> str:
    """Put printed names for the measures' names in a remark from `results.json`."""
    for name, title in READING_TITLES.items():
        text = re.sub(rf"\b{name}\b", title, text)
    text = text.replace("a model that never knew", "the retain model, which never knew")
    return re.sub(r"(\d)%", r"\1 %", text)


def method_title(name: str) -> str:
    """Return the printed label of a method, in the paper's spelling where it is one of its own."""
    return paper_method(name) or printable(name, 60) or MISSING


def model_heads(place: Place) -> tuple[str, str]:
    """Return what a model is called: method and update scope, or a name and nothing."""
    if place.is_retain_model:
        return THE_RETAIN_MODEL, ""
    if place.request == 0:
        return "before", ""
    return method_title(place.method), scope_title(place.scope)


def model_title(place: Place) -> str:
    """Return the name of a model on one line."""
    return " · ".join(part for part in model_heads(place) if part)


def percent(value: float | None, measure: str = "accuracy", *, digits: int = 1) -> str:
    """Write a value in percent without the sign; `*_pct` measures are percent already."""
    if value is None:
        return MISSING
    number = value if _PERCENT_UNITS in measure else 100 * value
    text = f"{number:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def points(value: float | None, *, digits: int = 1) -> str:
    """Write a difference of fractions in points, with its sign."""
    text = percent(value, digits=digits)
    return f"+{text}" if re.search("[1-9]", text) and not text.startswith("−") else text


def interval(estimate: Estimate | None, measure: str = "accuracy", *, digits: int = 1) -> str:
    """Write the interval as ``18.1 – 31.5``; empty if there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low = percent(estimate.low, measure, digits=digits)
    return f"{low} – {percent(estimate.high, measure, digits=digits)}"


def spread(estimate: Estimate | None, measure: str = "accuracy") -> str:
    """Write how far seeds lie apart, ``sd 4.1 over 3 seeds``; empty with one seed."""
    if estimate is None or estimate.spread is None:
        return ""
    count = sum(value is not None for _, value in estimate.seeds)
    return f"sd {percent(estimate.spread, measure)} over {count} seeds"


def p_value(value: float | None) -> str:
    """Write a p-value, ``p = 0.031``; empty if there is none."""
    if value is None:
        return ""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def listed(items: Sequence[str]) -> str:
    """Join words as ``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def seeds_phrase(seeds: Sequence[int]) -> str:
    """Say how many seeds a table stands on."""
    if len(seeds) == 1:
        return f"single seed ({seeds[0]})"
    return f"mean of {len(seeds)} seeds ({', '.join(str(seed) for seed in seeds)})"
