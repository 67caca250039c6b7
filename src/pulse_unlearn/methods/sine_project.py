"""SineProject: the projector moves within a fixed distance of where the request found it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Needs, Session
from pulse_unlearn.methods.composed import LossChoice
from pulse_unlearn.methods.updates import Rewritten

if TYPE_CHECKING:
    from torch import Tensor


@METHODS.register("sine_project")
class SineProject(Settings):
    """A loss whose projector is `W0 + bound * sin(d / bound)` with d trained, after SineProject.

    No entry of the projector leaves `W0 +- bound`, whatever the optimiser does; tensors outside the
    projector are trained as they always are.
    """

    by_steps: ClassVar[bool] = True

    loss: LossChoice = Field(
        default_factory=lambda: LossChoice(method="npo", settings={"retain_weight": 1.0})
    )
    """What is trained with, by its registered name."""
    bound: Annotated[float, Field(gt=0), Span(1e-4, 1.0)] = 1.0
    """Farthest that an entry of the projector moves in one request; 1 is the plain sine."""

    @property
    def needs(self) -> Needs:
        """What the loss needs."""
        return self.loss.build().needs

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse low-rank updates, and scopes without the projector."""
        if unlearn.update != "full":
            what, fix = "the projector itself is bounded", "add unlearn: {update: full}"
            yield Problem(what, "unlearn.update", unlearn.update, "full", fix)
        if unlearn.scope in ("llm", "vision"):
            allowed = "projector, projector+llm, all"
            yield Problem("the projector is not trained", "unlearn.scope", unlearn.scope, allowed)
        yield from self.loss.weighted().problems(unlearn)

    def run(self, session: Session) -> None:
        """Train with every update of the projector taken along the sine."""
        start = session.initial

        def change(name: str, before: Tensor, after: Tensor) -> Tensor:
            return along_sine(start[name], before, after, bound=self.bound)

        bounded = Rewritten(session, session.names_in("projector"), change)
        session.train(
            self.loss.weighted(), gradient_hook=bounded.gradient, update_hook=bounded.update
        )


def along_sine(start: Tensor, before: Tensor, after: Tensor, *, bound: float) -> Tensor:
    """Return where an update leads if it is one of d in `start + bound * sin(d / bound)`.

    `after - before` becomes a step of d by the chain rule, times `cos(d / bound)`; d ends at
    `+- bound * pi / 2`, where the sine does.
    """
    angle = ((before.float() - start.float()) / bound).clamp(-1.0, 1.0).arcsin()
    step = (after.float() - before.float()) / bound * angle.cos()
    moved = (angle + step).clamp(-math.pi / 2, math.pi / 2)
    return (start.float() + bound * moved.sin()).to(start.dtype)
