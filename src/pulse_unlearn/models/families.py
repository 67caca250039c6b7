"""What differs between model families, as data: module paths, prompts, processors, positions.

How a turn is written is the chat template's to say, and what stands for a picture the processor's;
only where these mislead does an entry say it. What decides packing beyond an entry (sliding
windows, M-RoPE) is the config's to say, in `backends.packing_obstacle`.

Entries were made for transformers 5 and are held to by `tests/test_families.py`, on random models
of a few thousand weights; published weights of the families were not at hand. A family without an
entry is looked at in `models/parts.py`; what cannot be read at all stands in `UNREADABLE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.registry import Registry

Fields = Mapping[str, Callable[[Any], Any]]
"""Processor attribute -> the value that the model's config implies; None where it implies none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Facts about one family; module paths are those of the transformers class."""

    model_type: str
    """`model_type` of its config.json."""
    vision_tower: str
    projector: str
    """May lie inside the vision tower, and is then no part of scope `vision`."""
    language_model: str
    head: str = "lm_head"
    """The output layer; a full update of the language model includes it."""
    answer_prefix: str | None = None
    """Text between the generation prompt and an answer; None reads it from the chat template."""
    answer_end: str | None = None
    """Special token behind an answer; None reads it from the chat template."""
    template: str | None = None
    """Chat template of a family whose processors have none; it writes all there is around a text,
    and the processor adds nothing."""
    processor: str | None = None
    """Name of the transformers class to read the processor with, where its own will not do."""
    processor_fields: Fields = field(default_factory=dict)
    """What must agree, or image tokens and image features do not match."""
    positions: Literal["plain", "own"] = "own"
    """`plain` counts tokens from 0; `own` lets the model work them out (M-RoPE, counts from 1)."""
    attention: Literal["causal", "image_block", "prefix"] = "causal"
    """`image_block`: a picture's tokens see each other; `prefix`: all of the prompt does."""
    unpackable: str = ""
    """Why questions cannot share a beginning, whatever the config; empty if they may."""


def _patch(config: Any) -> Any:
    return config.vision_config.patch_size


def _class_token(config: Any) -> int | None:
    kind = config.vision_config.model_type
    return {"clip_vision_model": 1, "siglip_vision_model": 0}.get(kind)


def _strategy(config: Any) -> Any:
    return config.vision_feature_select_strategy


def _square(config: Any) -> int:
    return int((config.vision_config.image_size // config.vision_config.patch_size) ** 2)


def _shuffled(config: Any) -> int:
    return _square(config) // int(config.scale_factor) ** 2


def _strided(config: Any) -> int:
    """Tokens of one tile of Ovis2: patches are gathered in squares, the last ones filled up."""
    vision = config.vision_config
    patches = vision.image_size // vision.patch_size
    return int((-(-patches // vision.hidden_stride)) ** 2)


_CLIP_FIELDS: Fields = {
    "patch_size": _patch,
    "vision_feature_select_strategy": _strategy,
    "num_additional_image_tokens": _class_token,
}
_QWEN_FIELDS: Fields = {
    "image_processor.patch_size": _patch,
    "image_processor.merge_size": lambda config: config.vision_config.spatial_merge_size,
    "image_processor.temporal_patch_size": lambda config: config.vision_config.temporal_patch_size,
}
_SEEN = "tokens of a picture see each other"

FAMILIES: Registry[Family] = Registry("family", group="pulse_unlearn.families")


def _llava(model_type: str, **facts: Any) -> None:
    """Add a family whose class is laid out as LLaVA's."""
    FAMILIES.add(
        model_type,
        Family(
            model_type=model_type,
            vision_tower="model.vision_tower",
            projector="model.multi_modal_projector",
            language_model="model.language_model",
            **facts,
        ),
    )


def _qwen(model_type: str) -> None:
    """Add a family laid out as Qwen2-VL, whose projector is the last part of the vision tower."""
    FAMILIES.add(
        model_type,
        Family(
            model_type=model_type,
            vision_tower="model.visual",
            projector="model.visual.merger",
            language_model="model.language_model",
            processor_fields=_QWEN_FIELDS,
            unpackable="its positions are not plain (M-RoPE)",
        ),
    )


def _idefics(model_type: str) -> None:
    """Add Idefics3 or SmolVLM; the latter's own processor wants num2words, for videos alone."""
    FAMILIES.add(
        model_type,
        Family(
            model_type=model_type,
            vision_tower="model.vision_model",
            projector="model.connector",
            language_model="model.text_model",
            processor="Idefics3Processor",
            processor_fields={"image_seq_len": _shuffled},
            positions="plain",
        ),
    )


# LLaVA-1.5: its published template ends an answer with a space, and no token; the tokenizer's
# end-of-text token ended it in training, and ends it here.
_llava("llava", processor_fields=_CLIP_FIELDS, positions="plain")
# LLaVA-NeXT: one class over several language models, each with its own template.
_llava("llava_next", processor_fields=_CLIP_FIELDS, positions="plain")
# LLaVA-OneVision: its template writes `assistant\n` for the generation prompt, but `assistant \n`
# before an answer that is there; training had the former.
_llava(
    "llava_onevision",
    answer_prefix="",
    answer_end="<|im_end|>",
    processor_fields={
        "num_image_tokens": _square,
        "vision_feature_select_strategy": _strategy,
        "vision_aspect_ratio": lambda config: config.vision_aspect_ratio,
    },
    positions="plain",
)
_llava(
    "internvl",
    processor_fields={"image_seq_length": lambda config: config.image_seq_length},
    positions="plain",
)
_llava(
    "gemma3",
    processor_fields={"image_seq_length": lambda config: config.mm_tokens_per_image},
    positions="plain",
    attention="image_block",
    unpackable=_SEEN,
)
# PaliGemma: no chat template is published; prompts are `image, <bos>, text, newline`, and there is
# no place for a system turn.
_llava(
    "paligemma",
    template=(
        "{% for message in messages %}{% if message['role'] == 'system' %}"
        "{{ raise_exception('there are no system turns') }}{% endif %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}"
        "{% if message['role'] == 'user' %}<bos>{% endif %}"
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
        "{% endif %}{% endfor %}{{ '\n' if message['role'] == 'user' else '<eos>' }}{% endfor %}"
    ),
    processor_fields={"image_seq_length": _square},
    attention="prefix",
    unpackable="all tokens of a question see each other",
)
# Ovis2: a tower says which words of a visual vocabulary a patch is, and a table what they mean to
# the language model. What marks a picture in a prompt need be no token of its tokenizer.
FAMILIES.add(
    "ovis2",
    Family(
        model_type="ovis2",
        vision_tower="model.vision_tower",
        projector="model.visual_embeddings_table",
        language_model="model.language_model",
        processor_fields={"image_seq_length": _strided},
        positions="plain",
        unpackable="its prompts mark a picture by a text, not by a token",
    ),
)
_idefics("idefics3")
_idefics("smolvlm")
_qwen("qwen2_vl")
_qwen("qwen2_5_vl")
_qwen("qwen3_vl")

NEEDS_TORCHVISION = (
    "cohere2_vision",
    "kimi_k25",
    "lfm2_vl",
    "llama4",
    "mistral3",
    "molmo2",
    "perception_lm",
)
"""Families whose processors take torchvision; where it is, they are looked at in `models/parts.py`
like any other without an entry. None of them was run: torchvision was not at hand."""

_NOT_TEXT = "it does not answer questions about pictures in text"
_SOUND = "its processor has a part for sound"
UNREADABLE: dict[str, str] = {
    **dict.fromkeys(
        ("evolla", "pix2struct", "pp_formulanet", "udop", "vision-encoder-decoder"), _NOT_TEXT
    ),
    **dict.fromkeys(
        (
            "gemma3n",
            "gemma4",
            "gemma4_unified",
            "qwen2_5_omni_thinker",
            "qwen3_omni_moe_thinker",
        ),
        _SOUND,
    ),
    "instructblip": "its processor has a second tokenizer",
    "instructblipvideo": "it sees videos",
}
"""Image-text-to-text families of transformers 5 that cannot be used, and why."""


SCOPE_PARTS: dict[str, tuple[str, ...]] = {
    "projector": ("projector",),
    "llm": ("language_model",),
    "projector+llm": ("projector", "language_model"),
    "vision": ("vision_tower",),
    "all": ("vision_tower", "projector", "language_model"),
}
"""Update scope -> the parts of a family that are updated."""


def known_family(model_type: str) -> Family | None:
    """Return the entry for a config's `model_type`, or None."""
    return next((family for _, family in FAMILIES if family.model_type == model_type), None)


def no_entry(model_type: str, why: str) -> ModelError:
    """Return the error for a family without an entry whose parts cannot be inferred: `why`."""
    known = ", ".join(sorted(family.model_type for _, family in FAMILIES))
    return ModelError(
        Problem(
            f"no entry for this model family{why and ', and '}{why}",
            got=repr(model_type),
            allowed=known,
            fix=f'add Family(model_type="{model_type}", ...) to models/families.py '
            "(see CONTRIBUTING.md)",
        )
    )
