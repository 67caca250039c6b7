"""What ends or marks a training: stop rules, non-finite steps, collapse.

Gradient ascent runs away without any NaN (cross-entropy 6 -> 281 was measured on a small model,
where uniform is 6.2), so a loss far above ln V is flagged as collapsed; the result is kept, as it
is a finding and not a crash. Retained answers are to be kept, so that it is enough there if they
become less likely than under uniform guessing; they are looked at where the method has a retain
batch. Without one, the scored answers tell (`output broken`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

StoppedBy = Literal[
    "max_steps",
    "loss_bound",
    "target_forgetting",
    "already_forgotten",
    "target_accuracy",
    "diverged",
    "procedure",
]
"""`already_forgotten`: the target was reached before the first step, so none was taken;
`procedure`: nothing was trained, the method edited the model."""

ROUNDING = 1e-9
"""Of an accuracy held against a share of another one: 1.0 x (1 - 0.55) is below 0.45."""
NON_FINITE_LIMIT = 3
"""Non-finite steps in a row after which training stops as diverged."""
COLLAPSE_FACTOR = 2.0
"""A forget loss above this multiple of ln V (uniform guessing over the vocabulary) is collapse."""
RETAIN_COLLAPSE_FACTOR = 1.0
"""Likewise, of the cross-entropy of retained answers, if it was not above it at first."""


@dataclass(slots=True)
class Guard:
    """Counts non-finite steps and notes collapse; serialised with every checkpoint."""

    vocabulary: int
    skipped: int = 0
    skipped_in_row: int = 0
    flags: list[str] = field(default_factory=list)
    retained_first: float | None = None
    """The retained answers' loss when it was first looked at."""

    def note_step(self, *, finite: bool) -> bool:
        """Record whether a step was finite; return True if training has diverged."""
        self.skipped += not finite
        self.skipped_in_row = 0 if finite else self.skipped_in_row + 1
        if self.skipped_in_row >= NON_FINITE_LIMIT:
            self.note_divergence()
            return True
        return False

    def note_divergence(self) -> None:
        """Flag that training left the finite numbers."""
        self._flag("diverged")

    def note_losses(self, *, forget: float | None, retain: float | None) -> None:
        """Flag negative log-likelihoods per token (nats) above those of uniform guessing.

        Retained answers that nobody knew to begin with are held to the bound of forgotten ones.
        """
        uniform = math.log(self.vocabulary)
        if self.retained_first is None:
            self.retained_first = retain
        known = self.retained_first is not None and self.retained_first <= uniform
        limits = (COLLAPSE_FACTOR, RETAIN_COLLAPSE_FACTOR if known else COLLAPSE_FACTOR)
        for nll, factor in zip((forget, retain), limits, strict=True):
            if nll is not None and nll > factor * uniform:
                self._flag("collapsed")

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {
            "skipped": self.skipped,
            "skipped_in_row": self.skipped_in_row,
            "flags": self.flags,
            "retained_first": self.retained_first,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's state."""
        self.skipped = state["skipped"]
        self.retained_first = state["retained_first"]
        self.skipped_in_row = state["skipped_in_row"]
        self.flags = list(state["flags"])

    def _flag(self, flag: str) -> None:
        if flag not in self.flags:
            self.flags.append(flag)


@dataclass(frozen=True, slots=True)
class StopRule:
    """When training ends early; `accuracy` is measured on views that are never reported."""

    check_every: int
    loss_bound: float | None = None
    accuracy_at_most: float | None = None
    accuracy_at_least: float | None = None
    at_once: bool = True
    """Whether `accuracy_at_most` may hold before the first step."""

    @property
    def looks_at_answers(self) -> bool:
        """Whether the rule needs accuracies at all."""
        return self.accuracy_at_most is not None or self.accuracy_at_least is not None

    @property
    def may_hold_at_once(self) -> bool:
        """Whether the rule may hold before the first step: earlier requests took these people."""
        return self.at_once and self.accuracy_at_most is not None

    def due(self, step: int) -> bool:
        """Tell whether accuracy is to be measured after this many steps."""
        return self.looks_at_answers and step % self.check_every == 0

    def by_loss(self, nll: float | None) -> StoppedBy | None:
        """Return the reason to stop at this forget loss, if any."""
        if self.loss_bound is not None and nll is not None and nll >= self.loss_bound:
            return "loss_bound"
        return None

    def by_accuracy(self, accuracy: float) -> StoppedBy | None:
        """Return the reason to stop at this accuracy, if any."""
        if self.accuracy_at_most is not None and accuracy <= self.accuracy_at_most + ROUNDING:
            return "target_forgetting"
        if self.accuracy_at_least is not None and accuracy >= self.accuracy_at_least - ROUNDING:
            return "target_accuracy"
        return None
