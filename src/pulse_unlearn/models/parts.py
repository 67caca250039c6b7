"""The parts of a model whose family has no entry, inferred from its module tree."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, PretrainedConfig

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.families import UNREADABLE, Family, known_family, no_entry

NAMES: dict[str, tuple[str, ...]] = {
    "vision_tower": ("vision_tower", "visual", "vision_model", "vision_encoder"),
    "projector": (
        "multi_modal_projector",
        "connector",
        "merger",
        "aligner",
        "projector",
        "vision_projection",
        "language_projection",
    ),
    "language_model": ("language_model", "text_model"),
}
"""What transformers calls each part, the usual name first."""
FAILURES = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    ImportError,
)
"""What transformers raises where a model or processor is given what it does not take."""


def family_for(config: PretrainedConfig, where: str) -> Family:
    """Return the family's entry, or one inferred from the model; no weight is loaded.

    Raises ModelError for a model that is no image-text-to-text model of transformers, or whose
    parts have other names.
    """
    both = (config, config.get_text_config())
    if any(getattr(one, "is_encoder_decoder", False) for one in both):
        raise ModelError(
            Problem(
                "an encoder reads the question, so the answer does not stand behind it",
                where,
                got=repr(config.model_type),
                allowed="models that read question and answer as one sequence",
                fix="use a model of another family",
            )
        )
    family = known_family(config.model_type)
    if family is not None:
        return family
    if config.model_type in UNREADABLE:
        raise no_entry(config.model_type, UNREADABLE[config.model_type])
    auto: Any = AutoModelForImageTextToText
    try:
        with torch.device("meta"):
            model = auto.from_config(config)
    except FAILURES as error:
        raise no_entry(config.model_type, f"{where} cannot be built: {error}") from error
    return infer_family(model, config.model_type)


def infer_family(model: nn.Module, model_type: str) -> Family:
    """Find the parts in the module tree; raises ModelError naming those that are not there."""
    found: dict[str, Any] = {part: _shallowest(model, names) for part, names in NAMES.items()}
    absent = [
        f"no {part} was found (looked for {', '.join(NAMES[part])})"
        for part, path in found.items()
        if path is None
    ]
    if absent:
        raise no_entry(model_type, "; ".join(absent))
    return Family(
        model_type=model_type,
        unpackable="its family has no entry",
        **found,
    )


def _shallowest(model: nn.Module, names: tuple[str, ...]) -> str | None:
    """Return the path nearest the root that ends in one of the names, an earlier name first."""
    paths = [path for path, _ in model.named_modules() if path.rpartition(".")[2] in names]
    rank = {name: number for number, name in enumerate(names)}
    return min(
        paths,
        key=lambda path: (path.count("."), rank[path.rpartition(".")[2]]),
        default=None,
    )
