"""The learning rate of each step."""

from __future__ import annotations

import math

from pulse_unlearn.config import OptimiserSettings


def learning_rate_at(step: int, total: int, settings: OptimiserSettings) -> float:
    """Return the learning rate of a step (counted from 0) under warm-up and schedule."""
    warmup = math.ceil(round(settings.warmup * total, 6))  # 0.07 * 100 is above 7 in binary
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    factor = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[settings.schedule]
    return settings.learning_rate * factor
