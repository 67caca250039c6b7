"""FIT: ask what a request adds to earlier ones, how much it weighs, and which layers know it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, model_validator

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Loss, Needs, Session, Tensors
from pulse_unlearn.methods.composed import LossChoice, together
from pulse_unlearn.methods.constraints import RetainNll
from pulse_unlearn.methods.task_vector import Memorise

if TYPE_CHECKING:
    from torch import Tensor


class GradedLoss(Settings):
    """A loss for requests that weigh at least so much."""

    at_least: Annotated[float, Field(ge=0)] = 0.0
    """Norm of the forget gradient over that of the retain gradient."""
    loss: LossChoice = Field(
        default_factory=lambda: LossChoice(method="npo", settings={"retain_weight": 1.0})
    )


def _grades() -> tuple[GradedLoss, ...]:
    return GradedLoss(at_least=1.0, loss=LossChoice(method="grad_diff")), GradedLoss()


@METHODS.register("fit")
class Fit(Settings):
    """A wrapper for sequences after FIT (2026): filter, choose a loss by importance, few layers.

    Questions that nearly repeat those of earlier requests are left out; the loss is the one whose
    `at_least` is the highest that the request's importance reaches; of the language model only the
    layers are trained whose absence changes the forget loss most, and all else stays exactly as is.
    """

    by_steps: ClassVar[bool] = True

    losses: Annotated[tuple[GradedLoss, ...], Field(min_length=1)] = Field(default_factory=_grades)
    similarity: Annotated[float, Field(gt=0, le=1), Span(0.8, 0.99, log=False)] = 0.9
    """Cosine of embeddings from which a question repeats an earlier one."""
    embedded_by: int | None = None
    """Layer of the language model whose states are the embeddings, negative from the last; None for
    the middle one. The last ones say little but what the answer is."""
    top_k: Annotated[int, Field(ge=1), Span(1, 16)] = 8
    """Layers that are trained; all of them where there are fewer."""
    batches: Annotated[int, Field(ge=1)] = 8
    """Batches that importance and layers are measured on."""

    @model_validator(mode="after")
    def _leaves_no_request_out(self) -> Fit:
        grades = [one.at_least for one in self.losses]
        if min(grades) > 0 or len(set(grades)) < len(grades):
            raise ValueError("at_least must differ between the losses, and one must begin at 0")
        _ = self.needs  # raises ValueError where two losses need different things
        return self

    @property
    def needs(self) -> Needs:
        """What any of the losses needs, and a retain batch."""
        return replace(together([one.loss.build().needs for one in self.losses]), retain=True)

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse scopes without the language model, and what the losses refuse."""
        if unlearn.scope in ("projector", "vision"):
            allowed = "llm, projector+llm, all"
            what = "fit trains layers of the language model"
            yield Problem(what, "unlearn.scope", unlearn.scope, allowed)
        for one in self.losses:
            yield from one.loss.weighted().problems(unlearn)

    def run(self, session: Session) -> None:
        """Filter, choose, train the chosen layers; carry the new questions' embeddings over.

        Nothing is trained where every question repeats an earlier one.
        """
        import torch

        middle = (len(session.layers) - 1) // 2
        layer = middle if self.embedded_by is None else self.embedded_by
        found = session.embeddings("forget", layer=layer)
        centre, earlier = session.state.get("centre"), session.state.get("embeddings")
        if centre is None:
            told = session.embeddings("retain", layer=layer, batches=self.batches)
            centre = torch.stack(list(told.values())).mean(0)
        # Around what all questions share: uncentred, any two of one template are alike.
        own = {name: value - centre for name, value in found.items()}
        repeated = repeats(own, earlier, similarity=self.similarity)
        new = [value for name, value in own.items() if name not in repeated]
        if new:
            self._train(session, repeated)
        kept = ([] if earlier is None else [earlier]) + [value.unsqueeze(0) for value in new]
        session.carry({"centre": centre, "embeddings": torch.cat(kept)})

    def _train(self, session: Session, repeated: Sequence[str]) -> None:
        weight = importance(session, batches=self.batches)
        loss = chosen_loss(self.losses, weight)
        layers = influential_layers(session, count=self.top_k, batches=self.batches)
        names = session.layers
        trained = {name for layer in layers for name in names[layer]}
        before = session.initial
        held = [name for name in before if name not in trained]

        def silence(gradients: dict[str, Tensor]) -> None:
            for name in held:
                gradients[name].zero_()  # or clipping would look at what is put back

        def hold(tensors: Tensors) -> None:
            for name in held:
                tensors[name].copy_(before[name])

        session.train(loss, gradient_hook=silence, update_hook=hold, skip=repeated)


def repeats(own: Tensors, earlier: Tensor | None, *, similarity: float) -> list[str]:
    """Return the names of the vectors whose cosine to any earlier one, [N, D], is so high."""
    import torch

    if earlier is None:
        return []
    return [
        name
        for name, value in own.items()
        if float(torch.cosine_similarity(value.unsqueeze(0), earlier).max()) >= similarity
    ]


def importance(session: Session, *, batches: int) -> float:
    """Return the norm of the forget loss's gradient over that of the retain loss's."""
    import torch

    def norm(loss: Loss) -> float:
        gradients = session.gradients(loss, batches=batches).values()
        return float(torch.stack([one.float().norm().cpu() for one in gradients]).norm())

    forget, retain = norm(Memorise()), norm(RetainNll())
    return forget / retain if retain > 0 else float("inf")


def chosen_loss(losses: Sequence[GradedLoss], weight: float) -> Loss:
    """Return the loss with the highest threshold that a request's importance reaches."""
    reached = [one for one in losses if one.at_least <= weight]
    return max(reached, key=lambda one: one.at_least).loss.weighted()


def influential_layers(session: Session, *, count: int, batches: int) -> list[int]:
    """Return the layers whose absence changes the forget answers' loss most, in order."""
    whole = session.mean_loss(Memorise(), batches=batches)
    changes = [
        abs(session.mean_loss(Memorise(), batches=batches, without_layer=layer) - whole)
        for layer in range(len(session.layers))
    ]
    ranked = sorted(range(len(changes)), key=lambda layer: -changes[layer])
    return sorted(ranked[:count])
