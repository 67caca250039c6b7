"""A model of any size on torch's meta device: modules and sizes, but no numbers in memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.checkpoints import own_code
from pulse_unlearn.models.describe import entry_of
from pulse_unlearn.models.families import FAMILIES, Family
from pulse_unlearn.models.shapes import Linear, Part, PictureRule, Shape, Stack


def build_on_meta(config: Any) -> nn.Module:
    """Return the model of a transformers config without weights; raises ModelError for no class."""
    auto: Any = AutoModelForImageTextToText
    try:
        with torch.device("meta"):
            model: nn.Module = auto.from_config(config, trust_remote_code=False)
    except ValueError as error:
        raise ModelError(
            Problem("transformers has no image-text-to-text model of this config", got=str(error))
        ) from error
    return model.requires_grad_(False)


def shape_on_meta(folder: Path) -> Shape:
    """Return the shape of the model whose config.json stands in a folder; raises ModelError."""
    try:
        config: Any = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        code = own_code(str(error), str(folder))
        raise ModelError(
            code or Problem("the model's config.json cannot be read", str(folder), got=str(error))
        ) from error
    family = entry_of(config.model_type)
    if family is None:
        raise ModelError(
            Problem(
                "no entry for this model family, so its parts cannot be told apart",
                str(folder),
                got=repr(config.model_type),
                allowed=", ".join(sorted(f.model_type for _, f in FAMILIES)),
            )
        )
    return measure(build_on_meta(config), config, family)


def measure(model: nn.Module, config: Any, family: Family) -> Shape:
    """Count a model's parts; raises ModelError if a module path of the family is not there."""
    vision, projector, language = (
        _module(model, path)
        for path in (family.vision_tower, family.projector, family.language_model)
    )
    text, eyes = config.get_text_config(), config.vision_config
    # Some towers hold their projector.
    inside = set(map(id, projector.modules()))
    parts = (
        _part(vision, leave_out=inside),
        _part(projector, leave_out=set()),
        _part(language, leave_out=set()),
    )
    everything = sum(tensor.numel() for tensor in model.parameters())
    return Shape(
        config.model_type,
        *parts,
        head=everything - sum(part.parameters for part in parts),
        tower=_stack(eyes, gated=False),
        text=_stack(text, gated=True),
        vocabulary=int(text.vocab_size),
        pictures=PictureRule(
            patch=int(getattr(eyes, "patch_size", 14)),
            side=int(getattr(eyes, "image_size", 0) or 448),
        ),
    )


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise ModelError(
            Problem(
                "the model has no such module", path, fix="mend the entry in models/families.py"
            )
        ) from error


def _part(root: nn.Module, *, leave_out: set[int]) -> Part:
    sizes: Counter[tuple[int, int, bool]] = Counter()
    everything = 0
    seen: set[int] = set()
    for module in root.modules():
        if id(module) in leave_out:
            continue
        if isinstance(module, nn.Linear):
            sizes[(module.in_features, module.out_features, module.bias is not None)] += 1
        own = {id(tensor): tensor for tensor in module.parameters(recurse=False)}
        everything += sum(tensor.numel() for key, tensor in own.items() if key not in seen)
        seen |= set(own)
    linear = tuple(
        Linear(into, out, count, bias) for (into, out, bias), count in sorted(sizes.items())
    )
    return Part(linear, everything - sum(layer.parameters for layer in linear))


def _stack(config: Any, *, gated: bool) -> Stack:
    def first(*names: str) -> int:
        found = [getattr(config, name, None) for name in names]
        return int(next((value for value in found if value), 0))

    heads = first("num_attention_heads", "num_heads") or 1
    width = first("hidden_size", "embed_dim")
    return Stack(
        layers=first("num_hidden_layers", "depth"),
        width=width,
        inner=first("intermediate_size") or 4 * width,
        heads=heads,
        kv_heads=first("num_key_value_heads") or heads,
        head_width=first("head_dim") or width // heads,
        gated=gated,
    )
