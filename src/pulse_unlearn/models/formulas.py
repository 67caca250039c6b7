"""A model's sizes from its config.json alone: no weight and no torch is needed.

What the formulas count is held against models built on torch's meta device by the tests. A family
without a formula is counted on the meta device itself, see `meta`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pulse_unlearn.models.shapes import Linear, Part, PictureRule, Shape, Stack

Config = Mapping[str, Any]
"""A config.json, parsed."""


class UnknownShape(LookupError):
    """No formula for this model, or its config.json leaves out what the formula needs."""


def shape_of(config: Config) -> Shape:
    """Return a model's shape from its config.json; raises UnknownShape where it cannot be told."""
    kind = str(config.get("model_type"))
    if kind not in _FORMULAS:
        raise UnknownShape(f"no formula for model_type {kind!r}")
    try:
        return _FORMULAS[kind](config)
    except KeyError as error:
        raise UnknownShape(f"config.json has no {error}") from error


def text_config(config: Config) -> Config:
    """Return the language model's part; older files hold it at the top."""
    inner = config.get("text_config")
    return {**_DEFAULTS.get(str(inner.get("model_type")), {}), **inner} if inner else config


# What transformers takes where a file is silent, as LLaVA's are; held against it by the tests.
_DEFAULTS: dict[str, Config] = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "clip_vision_model": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
    },
    "idefics3_vision": {
        "hidden_size": 1152,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 32,
    },
}
_DEFAULTS["smolvlm_vision"] = _DEFAULTS["idefics3_vision"]
_QKV_BIAS = {"qwen2", "qwen2_vl", "qwen2_5_vl", "qwen2_vl_text", "qwen2_5_vl_text"}


def _stack(config: Config, *, gated: bool) -> Stack:
    heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
    return Stack(
        layers=int(config["num_hidden_layers"]),
        width=width,
        inner=int(config["intermediate_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_width=int(config.get("head_dim") or width // heads),
        gated=gated,
    )


def _text(config: Config) -> tuple[Stack, Part]:
    """Return a decoder of the Llama kind: gated MLP, two norms a layer and one behind the last."""
    stack = _stack(config, gated=True)
    n, wide = stack.layers, stack.heads * stack.head_width
    narrow = stack.kv_heads * stack.head_width
    every = bool(config.get("attention_bias"))
    qkv = every or str(config.get("model_type")) in _QKV_BIAS
    linear = (
        Linear(stack.width, wide, n, qkv),
        Linear(stack.width, narrow, 2 * n, qkv),
        Linear(wide, stack.width, n, every),
        Linear(stack.width, stack.inner, 2 * n, bool(config.get("mlp_bias"))),
        Linear(stack.inner, stack.width, n, bool(config.get("mlp_bias"))),
    )
    norms = (2 * n + 1) * stack.width
    return stack, Part(linear, norms + int(config["vocab_size"]) * stack.width)


def _vit(stack: Stack) -> tuple[Linear, ...]:
    n, width = stack.layers, stack.width
    return (
        Linear(width, width, 4 * n, bias=True),
        Linear(width, stack.inner, n, bias=True),
        Linear(stack.inner, width, n, bias=True),
    )


def _head(config: Config, text: Config, stack: Stack) -> int:
    # Where neither says so, transformers does not tie these models' heads.
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    return 0 if tied else int(text["vocab_size"]) * stack.width


def _llava(config: Config) -> Shape:
    text, eyes = text_config(config), config["vision_config"]
    if text.get("model_type") != "llama" or eyes.get("model_type") != "clip_vision_model":
        raise UnknownShape("no formula for these parts of a LLaVA")
    eyes = {**_DEFAULTS["clip_vision_model"], **eyes}
    tower, (stack, language) = _stack(eyes, gated=False), _text(text)
    patch, side = int(eyes["patch_size"]), int(eyes["image_size"])
    places = (side // patch) ** 2 + 1
    layers = config.get("vision_feature_layer", -2)
    features = tower.width * (len(layers) if isinstance(layers, list) else 1)
    bias = bool(config.get("multimodal_projector_bias", True))
    return Shape(
        "llava",
        # Class token and places, patches, a norm before and one behind, two in each layer.
        vision=Part(
            _vit(tower),
            tower.width * (1 + places + 3 * patch**2 + 4 + 4 * tower.layers),
        ),
        projector=Part(
            (Linear(features, stack.width, 1, bias), Linear(stack.width, stack.width, 1, bias))
        ),
        language=language,
        head=_head(config, text, stack),
        tower=tower,
        text=stack,
        vocabulary=int(text["vocab_size"]),
        pictures=PictureRule(
            patch,
            side=side,
            extra=1,
            keeps_extra=config.get("vision_feature_select_strategy", "default") == "full",
        ),
    )


def _qwen2_5_vl(config: Config) -> Shape:
    text, eyes = text_config(config), config["vision_config"]
    stack, language = _text({"model_type": "qwen2_5_vl", **text})
    width, inner, layers = (int(eyes[key]) for key in ("hidden_size", "intermediate_size", "depth"))
    heads, patch = int(eyes["num_heads"]), int(eyes.get("patch_size", 14))
    tower = Stack(layers, width, inner, heads, heads, width // heads, gated=True)
    merge, frames = int(eyes.get("spatial_merge_size", 2)), int(eyes.get("temporal_patch_size", 2))
    merged = width * merge**2
    return Shape(
        "qwen2_5_vl",
        vision=Part(
            (
                Linear(width, 3 * width, layers, bias=True),
                Linear(width, width, layers, bias=True),
                Linear(width, inner, 2 * layers, bias=True),
                Linear(inner, width, layers, bias=True),
            ),
            width * (3 * frames * patch**2 + 2 * layers),
        ),
        projector=Part(
            (
                Linear(merged, merged, bias=True),
                Linear(merged, int(eyes["out_hidden_size"]), bias=True),
            ),
            width,
        ),
        language=language,
        head=_head(config, text, stack),
        tower=tower,
        text=stack,
        vocabulary=int(text["vocab_size"]),
        # Bounds of its processor; a preprocessor_config.json may hold others.
        pictures=PictureRule(patch, merge, pixels=(56 * 56, 28 * 28 * 16384)),
    )


def _idefics3(config: Config) -> Shape:
    text, eyes = text_config(config), config["vision_config"]
    kind = f"{config['model_type']}_vision"
    eyes = {**_DEFAULTS[kind], **eyes}
    tower, (stack, language) = _stack(eyes, gated=False), _text(text)
    patch, side = int(eyes["patch_size"]), int(eyes["image_size"])
    merge = int(config.get("scale_factor", 2))
    places = (side // patch) ** 2
    return Shape(
        str(config["model_type"]),
        # Patches with a bias, places, two norms in each layer and one behind.
        vision=Part(_vit(tower), tower.width * (3 * patch**2 + 1 + places + 4 * tower.layers + 2)),
        projector=Part((Linear(tower.width * merge**2, stack.width),)),
        language=language,
        head=_head(config, text, stack),
        tower=tower,
        text=stack,
        vocabulary=int(text["vocab_size"]),
        pictures=PictureRule(patch, merge, side=side, tiled_to=4 * side),
    )


_FORMULAS: dict[str, Callable[[Config], Shape]] = {
    "llava": _llava,
    "qwen2_5_vl": _qwen2_5_vl,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
}
