"""How numbers, names and intervals are written for people."""

from __future__ import annotations

from collections.abc import Sequence

from pulse_unlearn.report.estimates import Estimate
from pulse_unlearn.report.paper import paper_method
from pulse_unlearn.report.printable import printable

SCENARIO_TITLES = {
    "finetuned": "Fine-tuned knowledge",
    "pretrained": "Pre-trained knowledge",
    "sustainability": "Sustainability",
}
SET_TITLES = {
    "forget": "D_unlearn",
    "retain": "D_retain",
    "general": "General ability",
    "forgotten_earlier": "Forgotten in earlier requests",
    "just_requested": "Requested just now",
    "not_yet_requested": "Not yet requested",
    "celebrities": "Celebrities",
}
MODALITY_TITLES = {"multimodal": "with image", "text_only": "text only", "all": "all questions"}
MISSING = "–"
_PERCENT_UNITS = "_pct"


def scenario_title(name: str) -> str:
    """Return the printed name of a scenario; names of third parties are shown as they are."""
    return SCENARIO_TITLES.get(name, printable(name, 60))


def set_title(name: str) -> str:
    """Return the printed name of a set."""
    return SET_TITLES.get(name, printable(name.replace("_", " "), 60))


def scope_title(name: str) -> str:
    """Return the printed name of an update scope."""
    parts = {"projector": "Proj", "llm": "LLM", "vision": "Vision"}
    words = [parts.get(part, printable(part, 40)) for part in name.split("+") if part]
    return ", ".join(words) or MISSING


def method_title(name: str) -> str:
    """Return the printed label of a method, in the paper's spelling where it is one of its own."""
    return paper_method(name) or printable(name, 60) or MISSING


def percent(value: float | None, measure: str = "accuracy", *, digits: int = 1) -> str:
    """Write a value in percent without the sign; `*_pct` measures are percent already."""
    if value is None:
        return MISSING
    number = value if _PERCENT_UNITS in measure else 100 * value
    text = f"{number:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def interval(estimate: Estimate | None, measure: str = "accuracy", *, digits: int = 1) -> str:
    """Write the interval as ``18.1 – 31.5``; empty if there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low = percent(estimate.low, measure, digits=digits)
    return f"{low} – {percent(estimate.high, measure, digits=digits)}"


def spoken(estimate: Estimate | None, measure: str) -> str:
    """Write a value and its interval inside a sentence: ``71 % (65 – 77)``."""
    if estimate is None or estimate.value is None:
        return "an undefined share"
    limits = interval(estimate, measure, digits=0)
    return f"{percent(estimate.value, measure, digits=0)} %" + (f" ({limits})" if limits else "")


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
