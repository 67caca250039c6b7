"""Primal-dual unlearning: flat logits under a bound on the retain loss, which sets its weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Session, Term, Views, present

RETAIN = "retain_nll"


@METHODS.register("pdu")
class PrimalDual(Settings):
    """PDU (arXiv 2506.05314): least `(max logit - mean logit)^2` with retain NLL at most a bound.

    The weight of the retain term is the constraint's dual variable, at least 0: after each step
    `dual_step * (retain NLL - bound)` is added to it. It is a function of the log, so that it needs
    no state and is resumed. Published code takes every position, prompt and padding too, and moves
    the dual variable with each micro-batch.
    """

    by_steps: ClassVar[bool] = True

    forget_weight: Annotated[float, Field(gt=0), Span(0.001, 1.0)] = 1.0
    """The term is in nats squared: a peak of 15 nats above the mean weighs 225."""
    dual_start: Annotated[float, Field(ge=0)] = 1.0
    """The weight of the retain term that the dual variable begins with."""
    retain_eps: Annotated[float, Field(ge=0)] | None = None
    """Bound on the mean negative log-likelihood of retain examples, nats a token; None for that of
    the first batch, before any update (published code: 0, which is never reached)."""
    dual_step: Annotated[float, Field(ge=0), Span(0.01, 10.0)] = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps after which the dual variable begins to move."""

    @property
    def needs(self) -> Needs:
        """A retain batch."""
        return Needs(retain=True)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the forget term, and the retain term at the weight that it begins with."""
        from pulse_unlearn.methods import losses

        retain = losses.mean_nll(present(views.retain, "a retain batch"))
        return (
            Term("peak_squared", losses.peak_squared(views.forget), self.forget_weight),
            Term(RETAIN, retain, self.dual_start, over="retain"),
        )

    def weights(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        """Return the dual variable behind these log rows; a step that was skipped moves nothing."""
        told = [row[RETAIN] for row in rows]
        bound = self.retain_eps
        if bound is None:
            bound = next((nll for nll in told if nll is not None), 0.0)
        dual = self.dual_start
        for row, nll in zip(rows[self.warmup_steps :], told[self.warmup_steps :], strict=True):
            if not row["skipped"] and nll is not None:
                dual = max(0.0, dual + self.dual_step * (nll - bound))
        return {RETAIN: dual}

    def run(self, session: Session) -> None:
        """Train for all steps, the retain term weighted by the dual variable."""
        session.train(self, term_weights=self.weights)
