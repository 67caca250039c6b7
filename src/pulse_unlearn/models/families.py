"""What differs between model families, as data: module paths and the form of an assistant turn."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.registry import Registry


@dataclass(frozen=True, slots=True)
class Family:
    """Facts about one family; module paths are those of the transformers class."""

    model_type: str
    """`model_type` of its config.json."""
    vision_tower: str
    projector: str
    language_model: str
    answer_prefix: str
    """Text between the generation prompt and the answer."""
    processor: str | None = None
    """Name of the transformers class to read the processor with, where its own will not do."""
    processor_fields: tuple[str, ...] = ()
    """Processor attributes without which image tokens and image features do not match."""


FAMILIES: Registry[Family] = Registry("family", group="pulse_unlearn.families")
FAMILIES.add(
    "llava",
    Family(
        model_type="llava",
        vision_tower="model.vision_tower",
        projector="model.multi_modal_projector",
        language_model="model.language_model",
        answer_prefix=" ",
        processor_fields=("patch_size", "vision_feature_select_strategy"),
    ),
)

SCOPE_PARTS: dict[str, tuple[str, ...]] = {
    "projector": ("projector",),
    "llm": ("language_model",),
    "projector+llm": ("projector", "language_model"),
    "vision": ("vision_tower",),
    "all": ("vision_tower", "projector", "language_model"),
}
"""Update scope -> the parts of a family whose linear layers are adapted."""


def family_of(model_type: str) -> Family:
    """Return the entry for a config's `model_type`; raises ModelError naming the known ones."""
    for _, family in FAMILIES:
        if family.model_type == model_type:
            return family
    known = ", ".join(sorted(family.model_type for _, family in FAMILIES))
    raise ModelError(
        Problem(
            "no entry for this model family",
            got=repr(model_type),
            allowed=known,
            fix="add a Family to models/families.py (see CONTRIBUTING.md, 'add a family')",
        )
    )
