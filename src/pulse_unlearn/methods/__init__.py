"""Unlearning methods: one file each, found through one registry.

Importing this package imports no torch, so that a plan is printed quickly; the losses do.
"""

from pulse_unlearn.methods import (
    adapter_router,
    ce_u,
    composed,
    dpo,
    ewc,
    ga,
    ga_klr,
    grad_diff,
    gradient_projection,
    idk,
    jensun,
    kl_min,
    l2_previous,
    llmu,
    lora_l1,
    npo,
    orthogonal_lora,
    pruning,
    refusal_guard,
    rmu,
    simnpo,
    task_vector,
    undial,
    weighted_ascent,
)
from pulse_unlearn.methods.base import (
    METHODS,
    AnswerView,
    Checked,
    Extent,
    GradientHook,
    Loss,
    Method,
    Needs,
    Part,
    Penalty,
    Procedure,
    Request,
    Seen,
    Serves,
    Session,
    Tensors,
    Term,
    TermWeights,
    UpdateHook,
    Views,
)

__all__ = [
    "METHODS",
    "AnswerView",
    "Checked",
    "Extent",
    "GradientHook",
    "Loss",
    "Method",
    "Needs",
    "Part",
    "Penalty",
    "Procedure",
    "Request",
    "Seen",
    "Serves",
    "Session",
    "Tensors",
    "Term",
    "TermWeights",
    "UpdateHook",
    "Views",
    "adapter_router",
    "build_method",
    "ce_u",
    "composed",
    "dpo",
    "ewc",
    "ga",
    "ga_klr",
    "grad_diff",
    "gradient_projection",
    "idk",
    "jensun",
    "kl_min",
    "l2_previous",
    "llmu",
    "lora_l1",
    "npo",
    "orthogonal_lora",
    "pruning",
    "refusal_guard",
    "rmu",
    "serves",
    "simnpo",
    "task_vector",
    "undial",
    "weighted_ascent",
]


def build_method(name: str, settings: dict[str, object]) -> Method:
    """Return the method with its settings; raises ConfigError for an unknown name."""
    method: Method = METHODS.get(name)(**settings)
    return method


def serves(name: str) -> Serves | None:
    """Return what a registered method serves; None for one that changes weights and no more."""
    found: Serves | None = getattr(METHODS.get(name), "serves", None)
    return found
