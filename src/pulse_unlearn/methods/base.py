"""What a method is: pure losses on log-probabilities and masks, and a statement of what it needs.

A method never sees a model, the number of accumulation steps or of workers: it returns one value
per example and the training loop does every normalisation.

Shape letters: B examples, A answer positions (padded to the longest answer of the batch),
V vocabulary entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from pulse_unlearn.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class AnswerView:
    """What one model says at the answer positions of one batch."""

    log_probs: Tensor
    """Natural log-probabilities over the vocabulary, [B, A, V]."""
    labels: Tensor
    """Token ids of the answer, [B, A]; arbitrary valid ids where `mask` is false."""
    mask: Tensor
    """True at answer tokens, [B, A]."""


@dataclass(frozen=True, slots=True)
class Views:
    """Everything a method may look at in one step; a part it does not need is None."""

    forget: AnswerView
    retain: AnswerView | None = None
    forget_reference: AnswerView | None = None
    retain_reference: AnswerView | None = None


Extent = Literal["answer", "distribution"]
"""How much of the reference a method looks at: the probability of each answer token alone, or the
whole distribution over the vocabulary. The first is a number an answer token to keep."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the loop must provide beyond the forget batch."""

    retain: bool = False
    forget_reference: Extent | None = None
    retain_reference: Extent | None = None
    """Takes `retain`."""


@dataclass(frozen=True, slots=True)
class Term:
    """One named part of a loss: a value per example and its weight in the sum."""

    name: str
    values: Tensor
    """[B], in nats."""
    weight: float = 1.0
    over: Literal["forget", "retain"] = "forget"
    """Which batch the values belong to, so that the loop can take the mean over it."""


@runtime_checkable
class Method(Protocol):
    """A method is a frozen settings model with these two members."""

    @property
    def needs(self) -> Needs:
        """What the loop must provide."""

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the parts of the loss to minimise."""


METHODS: Registry[type] = Registry("method", group="pulse_unlearn.methods")


def present(view: AnswerView | None, what: str) -> AnswerView:
    """Return the view; raises ValueError if the loop did not provide what the method needs."""
    if view is None:
        raise ValueError(f"the training loop did not provide {what}")
    return view
