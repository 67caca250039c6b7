"""UNDO: what is hidden in the weights is blurred by noise, and what was kept is taught again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Checked, Needs, Session
from pulse_unlearn.methods.composed import LossChoice

if TYPE_CHECKING:
    from torch import Generator, Tensor


@METHODS.register("undo")
class UnlearnNoiseDistil(Settings):
    """UNDO (Lee et al. 2025, arXiv 2506.06278): unlearn, W <- (1 - noise) W + noise * N, distil.

    Unlearning that only changes what comes out is taken back in a few steps; a student that begins
    blurred and learns the unlearned model's answers has less to take back. N is drawn as weights
    are at first, normal with variance 2 / (inputs + outputs). Both phases are trained by
    `suppress`: its term on D_unlearn says what the unlearned model answers, its term on the retain
    batch what it kept. Whoever is in neither batch is not taught again: docs/methods.md.
    """

    suppress: LossChoice = Field(
        # Made when asked for: whether there is such a loss is looked up among plug-ins, too.
        default_factory=lambda: LossChoice(method="pulse", settings={"retain_weight": 4.0})
    )
    noise: Annotated[float, Field(gt=0, lt=1), Span(0.05, 0.8)] = 0.3
    """Share of the noise in every matrix; alpha in the paper. Vectors stay as they are."""
    strength: Annotated[float, Field(ge=0)] = 1.0
    """Factor of N; beta in the paper. At 0 matrices only shrink."""
    share: Annotated[float, Field(gt=0, lt=1), Span(0.1, 0.5)] = 0.2
    """Of `unlearn.stop.max_steps`: the part that unlearns before the noise; the rest distils."""

    @property
    def needs(self) -> Needs:
        """What the loss needs."""
        return self.suppress.weighted().needs

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse low-rank updates, and whatever the loss refuses."""
        if unlearn.update != "full":
            what = "noise on an adapter leaves what lies below it as it was"
            yield Problem(
                what, "unlearn.update", unlearn.update, "full", "add unlearn: {update: full}"
            )
        loss = self.suppress.build()
        if isinstance(loss, Checked):
            yield from loss.problems(unlearn)

    def run(self, session: Session) -> None:
        """Unlearn, blur, and teach again."""
        loss, first = self.suppress.weighted(), max(1, round(self.share * session.max_steps))
        session.train(loss, steps=first)
        session.edit(
            blurred(
                session.current,
                session.generator("noise"),
                noise=self.noise,
                strength=self.strength,
            )
        )
        session.train(loss, steps=max(1, session.max_steps - first), stop=False)


def blurred(
    tensors: Mapping[str, Tensor], generator: Generator, *, noise: float, strength: float
) -> dict[str, Tensor]:
    """Return the matrices among `tensors`, in the order of their names, mixed with noise."""
    import torch

    found = {}
    for name, weight in sorted(tensors.items()):
        if weight.ndim < 2:
            continue
        outputs, inputs = weight.shape[0], weight[0].numel()
        drawn = torch.randn(weight.shape, generator=generator) * (2 / (inputs + outputs)) ** 0.5
        drawn = drawn.to(weight.device, weight.dtype)
        found[name] = (1 - noise) * weight + noise * strength * drawn
    return found
