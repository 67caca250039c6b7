"""Gradient projection: each request keeps out of the directions that earlier requests used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Needs, Session, Term, Views, present


@METHODS.register("gradient_projection")
class GradientProjection(Settings):
    """NPO whose steps are orthogonal to gradients remembered from earlier requests.

    Orthogonal gradient descent (Farajtabar et al. 2020, arXiv 1910.07104) over a sequence of
    requests: what a later request does leaves the loss of earlier ones unchanged to first order.
    Every request remembers one direction, the mean gradient of its own loss when it is done.
    """

    beta: Annotated[float, Field(gt=0)] = 0.1
    batches: Annotated[int, Field(ge=1)] = 4
    """Batches that the remembered gradient is the mean over."""

    @property
    def needs(self) -> Needs:
        """The reference on the forget batch."""
        return Needs(forget_reference="answer")

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the preference term of NPO."""
        from pulse_unlearn.methods import losses

        reference = present(views.forget_reference, "the reference model's log-probs")
        return (Term("npo", losses.npo(views.forget, reference, beta=self.beta)),)

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse fresh adapters: their gradients at one request mean nothing at the next."""
        if unlearn.update == "lora" and unlearn.adapter == "fresh":
            yield Problem(
                "gradients are remembered for tensors that are trained on",
                "unlearn.adapter",
                got="fresh",
                allowed="continued, or unlearn.update: full",
                fix="add unlearn: {adapter: continued}",
            )

    def run(self, session: Session) -> None:
        """Train with projected gradients, then remember this request's own direction."""
        import torch
        from torch import Tensor

        names = sorted(session.initial)

        def flat(tensors: dict[str, Tensor]) -> Tensor:
            return torch.cat([tensors[name].flatten().float() for name in names])

        def without(vector: Tensor) -> Tensor:
            for direction in basis:
                vector = vector - (vector @ direction) * direction
            return vector

        def project(gradients: dict[str, Tensor]) -> None:
            kept = without(flat(gradients))
            sizes = [gradients[name].numel() for name in names]
            for name, part in zip(names, torch.split(kept, sizes), strict=True):
                gradients[name].copy_(part.view_as(gradients[name]))

        basis = [session.state[name] for name in sorted(session.state)]
        session.train(self, gradient_hook=project if basis else None)
        own = without(flat(session.gradients(self, batches=self.batches)))
        if own.norm() > 0:
            basis.append(own / own.norm())
        session.carry({f"{number:04d}": vector for number, vector in enumerate(basis)})
