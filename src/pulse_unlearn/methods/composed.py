"""Methods put together from others in the experiment file, without a line of Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from pulse_unlearn.config import Settings, UnlearnSettings
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.methods.base import (
    METHODS,
    Checked,
    Extent,
    Loss,
    Needs,
    Session,
    Term,
    Views,
    present,
)
from pulse_unlearn.methods.constraints import (
    L1,
    Constraint,
    Ewc,
    L2Previous,
    OrthogonalLora,
    Projection,
    needs_retain,
    restrained,
)

Value = TypeVar("Value")


class LossChoice(Settings):
    """One registered loss with its own settings, and its weight in a sum."""

    method: str = "npo"
    weight: Annotated[float, Field(gt=0)] = 1.0
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_a_loss(self) -> LossChoice:
        try:
            self.build()
        except ConfigError as error:
            raise ValueError("; ".join(map(str, error.problems))) from error
        return self

    def build(self) -> Loss:
        """Return the loss; raises ValueError for a procedure, ConfigError for an unknown name."""
        method = METHODS.get(self.method)(**self.settings)
        if not isinstance(method, Loss) or hasattr(method, "run"):
            allowed = ", ".join(sorted(name for name, one in METHODS if _is_loss(one)))
            raise ValueError(f"{self.method} is a procedure and no loss; allowed: {allowed}")
        return method

    def weighted(self) -> WeightedSum:
        """Return the loss with its weight."""
        return WeightedSum(((self.weight, self.build()),))


def _is_loss(method: type) -> bool:
    return hasattr(method, "terms") and not hasattr(method, "run")


class RetainTerm(Settings):
    """One term on the retain batch, whose people `unlearn.retain` names."""

    term: Literal["nll", "kl", "kl_reverse", "js", "l2_hidden"] = "nll"
    """Per answer token: negative log-likelihood; KL(reference || current); KL(current ||
    reference); Jensen-Shannon divergence; squared distance of hidden states to the reference's."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    layer: int = -2
    """Layer of the language model for `l2_hidden`, from 0 or, if negative, from the last."""

    @property
    def needs(self) -> Needs:
        """A retain batch and, but for `nll`, the reference on it."""
        if self.term == "nll":
            return Needs(retain=True)
        if self.term == "l2_hidden":
            return Needs(retain=True, retain_reference="hidden", hidden_layer=self.layer)
        return Needs(retain=True, retain_reference="distribution")

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the one term."""
        from pulse_unlearn.methods import losses

        retain = present(views.retain, "a retain batch")
        if self.term == "nll":
            values = losses.mean_nll(retain)
        else:
            reference = present(views.retain_reference, "the reference on retain answers")
            if self.term == "js":
                values = losses.js_divergence(retain, reference)
            elif self.term == "l2_hidden":
                values = losses.hidden_distance(retain, losses.hidden_of(reference))
            else:
                towards = self.term == "kl"
                values = losses.kl_divergence(
                    retain,
                    reference,
                    direction="reference_to_current" if towards else "current_to_reference",
                )
        return (Term(f"retain_{self.term}", values, over="retain"),)


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """Several losses as one."""

    parts: tuple[tuple[float, Loss], ...]

    @property
    def needs(self) -> Needs:
        """What the parts need together; raises ValueError where two need different things."""
        return together([loss.needs for _, loss in self.parts])

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Yield what the parts say of the settings."""
        for _, loss in self.parts:
            if isinstance(loss, Checked):
                yield from loss.problems(unlearn)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the terms of all parts; one whose name was taken is numbered by its part."""
        found: list[Term] = []
        for number, (weight, loss) in enumerate(self.parts, start=1):
            taken = {term.name for term in found}
            for term in loss.terms(views):
                name = f"{term.name}_{number}" if term.name in taken else term.name
                found.append(replace(term, name=name, weight=weight * term.weight))
        return tuple(found)


def together(needs: Sequence[Needs]) -> Needs:
    """Return what several losses need of one step.

    Raises ValueError where two need different other answers, orders or layers, or of one reference
    hidden states and probabilities.
    """
    return Needs(
        retain=any(one.retain for one in needs),
        forget_reference=_widest([one.forget_reference for one in needs], "forget answers"),
        retain_reference=_widest([one.retain_reference for one in needs], "retain answers"),
        alternative=_agreed([one.alternative for one in needs], "alternative answers"),
        alternative_reference=_widest([one.alternative_reference for one in needs], "alternatives"),
        options=_agreed([one.options for one in needs], "orders"),
        option_words=any(one.option_words for one in needs),
        drawn=any(one.drawn for one in needs),
        aside=any(one.aside for one in needs),
        letters=any(one.letters for one in needs),
        decoupled=any(one.decoupled for one in needs),
        hidden_layer=_agreed([one.hidden_layer for one in needs], "layers"),
    )


def _agreed(wanted: Sequence[Value | None], what: str) -> Value | None:
    found = list(dict.fromkeys(value for value in wanted if value is not None))
    if len(found) > 1:
        told = " and ".join(str(value) for value in found)
        raise ValueError(f"a step has one kind of {what}, and the parts want {told}")
    return found[0] if found else None


def _widest(extents: Sequence[Extent | None], what: str) -> Extent | None:
    found = {extent for extent in extents if extent is not None}
    if "hidden" in found and len(found) > 1:
        raise ValueError(f"the reference on {what} gives hidden states or probabilities, not both")
    # Whoever looks at the answer's own tokens finds them in a distribution, too.
    return "distribution" if "distribution" in found else next(iter(found), None)


Regulariser = Annotated[L1 | L2Previous | Ewc | OrthogonalLora, Field(discriminator="kind")]


class Restrained(Settings):
    """A loss trained under constraints: what `composed` and the methods for sequences share."""

    by_steps: ClassVar[bool] = True

    def _loss(self) -> Loss:
        raise NotImplementedError

    def _constraints(self) -> dict[str, Constraint]:
        raise NotImplementedError

    @property
    def needs(self) -> Needs:
        """What its losses and constraints need together."""
        needs = self._loss().needs
        return replace(needs, retain=needs.retain or needs_retain(self._constraints().values()))

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Yield what its parts say of the settings."""
        parts: Iterable[object] = (self._loss(), *self._constraints().values())
        for part in parts:
            if isinstance(part, Checked):
                yield from part.problems(unlearn)

    def run(self, session: Session) -> None:
        """Train under the constraints and carry over what they keep."""
        restrained(session, self._loss(), self._constraints())


@METHODS.register("composed")
class Composed(Restrained):
    """A sum of forget and retain terms under regularisers and gradient transforms.

    With `unlearn.retain` for the data and `unlearn.stop` for the end, a whole method in an
    experiment file.
    """

    forget: tuple[LossChoice, ...] = Field(default_factory=lambda: (LossChoice(),))
    retain: tuple[RetainTerm, ...] = ()
    regularisers: tuple[Regulariser, ...] = ()
    gradients: tuple[Projection, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Composed:
        together([loss.needs for _, loss in self._loss().parts])
        if not self.forget:
            raise ValueError("forget: name at least one loss")
        kinds = [one.kind for one in (*self.regularisers, *self.gradients)]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return self

    def _loss(self) -> WeightedSum:
        forget = [(one.weight, one.build()) for one in self.forget]
        return WeightedSum((*forget, *((one.weight, one) for one in self.retain)))

    def _constraints(self) -> dict[str, Constraint]:
        return {one.kind: one for one in (*self.regularisers, *self.gradients)}


class OneLoss(Restrained):
    """Any registered loss under one constraint."""

    loss: LossChoice = Field(
        default_factory=lambda: LossChoice(method="npo", settings={"retain_weight": 1.0})
    )
    """What is trained with, by its registered name."""

    def _loss(self) -> Loss:
        return self.loss.weighted()

    def _constraint(self) -> Constraint:
        raise NotImplementedError

    def _constraints(self) -> dict[str, Constraint]:
        one = self._constraint()
        return {one.kind: one}
