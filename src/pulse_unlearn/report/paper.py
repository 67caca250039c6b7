"""The paper's numbers, so that the report can print them beside ours.

Source: Kawakami, Egashira, Miyai, Irie, Aizawa, *PULSE: Practical Evaluation Scenarios for Large
Multimodal Model Unlearning*, arXiv 2507.01271v4. Table 3 is printed there; Figures 4 and 5 were
read off the figures' pixels, to about one point. All values are percent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

TITLE = "PULSE: Practical Evaluation Scenarios for Large Multimodal Model Unlearning"
REFERENCE = f"Kawakami, Egashira, Miyai, Irie, Aizawa. {TITLE}. arXiv 2507.01271v4, 2025."
BIBTEX = """@article{kawakami2025pulse,
  title   = {PULSE: Practical Evaluation Scenarios for Large Multimodal Model Unlearning},
  author  = {Kawakami and Egashira and Miyai and Irie and Aizawa},
  journal = {arXiv preprint arXiv:2507.01271},
  year    = {2025}
}"""

Column = tuple[str, str]
"""Set and modality of one column of Table 3."""

TABLE3_COLUMNS: tuple[Column, ...] = (
    ("forget", "multimodal"),
    ("forget", "text_only"),
    ("retain", "multimodal"),
    ("retain", "text_only"),
    ("general", "all"),
)
TABLE3_BEFORE: tuple[float, ...] = (78.0, 76.8, 70.0, 76.8, 75.1)
TABLE3_AFTER: dict[str, tuple[float, ...]] = {
    "projector+llm": (9.6, 35.2, 14.8, 29.2, 71.1),
    "llm": (24.8, 33.2, 29.2, 34.4, 48.8),
}
TABLE3_METHOD = "GA"


@dataclass(frozen=True, slots=True)
class Relative:
    """One radar of Figure 4: percent of the starting value forgotten, kept, kept."""

    forgotten: float
    retain_kept: float
    general_kept: float


FIGURE4: dict[tuple[str, str], Relative] = {
    ("finetuned", "GA"): Relative(71, 30, 94.7),
    ("finetuned", "GA+KLR"): Relative(69.5, 36, 94),
    ("finetuned", "NPO"): Relative(65.6, 36.6, 96.3),
    ("pretrained", "GA"): Relative(74, 28, 2),
    ("pretrained", "GA+KLR"): Relative(78.3, 27.8, 2.0),
    ("pretrained", "NPO"): Relative(64.5, 37.9, 7.2),
}

FIGURE5: dict[tuple[str, str], tuple[float, ...]] = {
    ("forget", "GA"): (77.4, 53, 51, 44, 0, 0),
    ("forget", "GA+KLR"): (77.4, 53, 51.5, 44.8, 2, 0),
    ("forget", "NPO"): (77.4, 60, 62, 49, 2, 0),
    ("retain", "GA"): (73.4, 64, 55.4, 48, 0, 0),
    ("retain", "GA+KLR"): (73.4, 65, 55.4, 49.4, 2, 0),
    ("retain", "NPO"): (73.4, 68.9, 61.1, 49, 2, 0),
    ("general", "GA"): (75.1, 75.1, 74.9, 72.9, 58, 13.7),
    ("general", "GA+KLR"): (75.1, 75.1, 74.7, 72.9, 61.1, 20.6),
    ("general", "NPO"): (75.1, 75.1, 74.6, 72.9, 0, 0),
}

METHODS: tuple[str, ...] = ("GA", "GA+KLR", "NPO")


def relative(scenario: str, method: str | None, request: int) -> Relative | None:
    """Return the paper's ratios for a cell: Figure 4, or made from Figure 5 for later requests."""
    if method is None:
        return None
    if scenario != "sustainability":
        return FIGURE4.get((scenario, method))
    paths = [FIGURE5.get((name, method), ()) for name in ("forget", "retain", "general")]
    if request < 1 or any(request >= len(path) for path in paths):
        return None
    forget, retain, general = (round(100 * path[request] / path[0], 1) for path in paths)
    return Relative(round(100 - forget, 1), retain, general)


@cache
def paper_method(label: str) -> str | None:
    """Return the paper's method of that label (``ga_klr`` is ``GA+KLR``), None if it has none."""
    key = _bare(label)
    return next((name for name in METHODS if _bare(name) == key), None)


def _bare(label: str) -> str:
    return "".join(character for character in label.lower() if character.isalnum())
