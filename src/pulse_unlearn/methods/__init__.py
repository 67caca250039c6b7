"""Unlearning methods: one file each, found through one registry.

Importing this package imports no torch, so that a plan is printed quickly; the losses do.
"""

from pulse_unlearn.methods import (
    adapter_router,
    alkn,
    alt_po,
    ce_u,
    composed,
    df_mcq,
    dpo,
    ewc,
    fit,
    ga,
    ga_klr,
    grad_diff,
    gradient_projection,
    idk,
    jensun,
    kl_min,
    l2_previous,
    levelled,
    llmu,
    lora_l1,
    manu,
    mmunlearner,
    npo,
    orthogonal_lora,
    pdu,
    pulse,
    refusal_guard,
    rmu,
    safe_eraser,
    simnpo,
    sine_project,
    smfa,
    task_vector,
    undial,
    undo,
    weighted_ascent,
)
from pulse_unlearn.methods.base import (
    METHODS,
    Activity,
    AnswerView,
    Checked,
    Extent,
    GradientHook,
    Loss,
    Method,
    ModelPart,
    Needs,
    OptionView,
    Orders,
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
    present,
)

__all__ = [
    "METHODS",
    "Activity",
    "AnswerView",
    "Checked",
    "Extent",
    "GradientHook",
    "Loss",
    "Method",
    "ModelPart",
    "Needs",
    "OptionView",
    "Orders",
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
    "alkn",
    "alt_po",
    "build_method",
    "ce_u",
    "composed",
    "df_mcq",
    "dpo",
    "ewc",
    "fit",
    "ga",
    "ga_klr",
    "goes_by_steps",
    "grad_diff",
    "gradient_projection",
    "idk",
    "jensun",
    "kl_min",
    "l2_previous",
    "levelled",
    "llmu",
    "lora_l1",
    "manu",
    "mmunlearner",
    "npo",
    "orthogonal_lora",
    "pdu",
    "present",
    "pulse",
    "refusal_guard",
    "rmu",
    "safe_eraser",
    "serves",
    "simnpo",
    "sine_project",
    "smfa",
    "task_vector",
    "undial",
    "undo",
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


def goes_by_steps(name: str) -> bool:
    """Tell whether the model after each step of a registered method is one on its way.

    That of every loss is; of a procedure where a class variable `by_steps` says so.
    """
    method = METHODS.get(name)
    return bool(getattr(method, "by_steps", not hasattr(method, "run")))
