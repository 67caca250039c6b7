"""Selects how a model is read: packed where that is shown to be exact, plain everywhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pulse_unlearn.config import SpeedSettings
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import Family
from pulse_unlearn.models.fast.features import Features
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.forward import Plain, Reader, inner_model
from pulse_unlearn.records import Example

CHECKED = 6
"""Examples both ways are tried on."""
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.3}
"""Largest difference of an answer's log-probabilities (nats) that is rounding; by dtype."""


def select_backend(
    model: Any,
    encoder: Encoder,
    *,
    speed: SpeedSettings,
    examples: Sequence[Example],
    warn: Callable[[str], None],
    features: Features | None = None,
) -> Reader:
    """Return the packed reader if settings and model allow it and a trial agrees, else the plain.

    The trial reads a few of the examples both ways; a disagreement is told through `warn`. Pictures
    whose `features` are there need no tower.
    """
    plain = Plain(model, encoder)
    reason = packing_obstacle(inner_model(model).config, encoder.family, speed)
    if reason:
        if speed.packing != "off":
            warn(f"questions are not packed: {reason}")
        return plain
    text = inner_model(model).config.get_text_config()
    budget = speed.pack_tokens or text.hidden_size
    packed = Packed(model, encoder, budget=budget, features=features)
    difference = _difference(plain, packed, _trial(examples))
    if not difference <= TOLERANCE[inner_model(model).dtype]:
        warn(f"questions are not packed: log-probabilities differ by {difference:.2g} nats")
        return plain
    return packed


def packing_obstacle(config: Any, family: Family, speed: SpeedSettings) -> str:
    """Return why questions will not be packed; empty if they will, should a trial agree."""
    if speed.packing == "off":
        return "speed.packing is off"
    if family.unpackable:
        return family.unpackable
    text = config.get_text_config()
    if getattr(text, "_attn_implementation", None) == "flash_attention_2":
        return "flash_attention_2 takes no mask of pairs (model.attention: sdpa does)"
    if set(getattr(text, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return "its layers do not all see the whole sequence"
    if getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True):
        return "its attention slides over the sequence"
    rope = getattr(text, "rope_parameters", None) or {}
    if "mrope_section" in rope:
        return "its positions are not plain (M-RoPE)"
    return ""


def _trial(examples: Sequence[Example]) -> list[Example]:
    """Return a few examples: of one picture if any, and without one if any."""
    pictured = [example for example in examples if example.picture is not None]
    first = pictured[0].picture if pictured else None
    alike = [e for e in pictured if first and e.picture and e.picture.digest == first.digest]
    others = [example for example in examples if example.picture is None]
    return [*alike[: CHECKED // 2], *others[: CHECKED // 3], *pictured[-1:]]


def _difference(plain: Reader, packed: Reader, examples: Sequence[Example]) -> float:
    """Return the largest difference of an answer token's log-probability, nats."""
    was_training = plain.model.training
    plain.model.eval()
    with torch.no_grad():
        one, other = (
            reader.answer_log_probs(examples, tokens="with_end") for reader in (plain, packed)
        )
    plain.model.train(was_training)
    picked = [view.log_probs.gather(-1, view.labels.unsqueeze(-1)) for view in (one, other)]
    gaps: torch.Tensor = (picked[0] - picked[1]).squeeze(-1)[one.mask].abs()
    # What is infinite or undefined both ways agrees.
    same = picked[0].squeeze(-1)[one.mask].isfinite() | picked[1].squeeze(-1)[one.mask].isfinite()
    return float(gaps[same].nan_to_num(nan=torch.inf).max()) if same.any() else 0.0
