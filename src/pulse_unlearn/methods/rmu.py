"""Representation misdirection: hidden states of forget answers towards a random direction (RMU)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views, present


@METHODS.register("rmu")
class RepresentationMisdirection(Settings):
    """RMU (Li et al. 2024, arXiv 2403.03218): mean squared distances of hidden states.

    The states are those whose next token is the answer's, where the answer is decided; the paper
    takes all tokens of documents. A state at a one-letter answer itself would decide nothing.
    """

    layer: int = -2
    """Layer of the language model, from 0 or, if negative, from the last (the paper: 7 of 32)."""
    scale: Annotated[float, Field(gt=0), Span(1.0, 50.0)] = 6.5
    """Length of the random direction, c in the paper."""
    retain_weight: Annotated[float, Field(ge=0), Span(0.1, 100.0)] = 1.0
    """Alpha in the paper, where it runs from 1 to 1200 with the model."""
    direction_seed: int = 0
    """Draws the direction; the same for every step and request."""

    @property
    def needs(self) -> Needs:
        """Hidden states of both batches, and the reference's of the retain batch."""
        return Needs(retain=True, retain_reference="hidden", hidden_layer=self.layer)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the distances from the direction and from the reference, each [B]."""
        import torch

        from pulse_unlearn.methods import losses

        forget, retain = views.forget, present(views.retain, "a retain batch")
        reference = present(views.retain_reference, "the reference model's hidden states")
        width = losses.hidden_of(forget).shape[-1]
        drawn = torch.rand(width, generator=torch.Generator().manual_seed(self.direction_seed))
        # From the positive orthant, as published.
        direction = (drawn / drawn.norm() * self.scale).to(forget.labels.device)
        return (
            Term("misdirect", losses.hidden_distance(forget, direction)),
            Term(
                "keep",
                losses.hidden_distance(retain, losses.hidden_of(reference)),
                self.retain_weight,
                over="retain",
            ),
        )
