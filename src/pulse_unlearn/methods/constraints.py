"""What holds a training back: regularisers, and changes of gradients and of updates.

A constraint is a part of a method and none of its own. It says what it does within a step (`hooks`)
and what a later request of the sequence will need of this one (`carries`). `restrained` runs a loss
under any number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeVar

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import (
    GradientHook,
    Loss,
    Needs,
    Penalty,
    Session,
    Tensors,
    Term,
    UpdateHook,
    Views,
)

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a constraint does within each step."""

    gradient: GradientHook | None = None
    update: UpdateHook | None = None
    penalty: Penalty | None = None


class Constraint(Protocol):
    """A frozen settings model; `state` is what it itself carried over from the request before."""

    @property
    def kind(self) -> str:
        """What it is called in an experiment file."""

    def problems(self, unlearn: UnlearnSettings) -> Iterable[Problem]:
        """Yield what is wrong with the settings it is to work under."""

    def hooks(self, session: Session, loss: Loss, state: Tensors) -> Hooks:
        """Return what to do within each step; called once, before the first."""

    def carries(self, session: Session, loss: Loss, state: Tensors) -> Tensors:
        """Return what to keep for the next request; called once, after the last step."""


def restrained(session: Session, loss: Loss, constraints: Mapping[str, Constraint]) -> None:
    """Train with a loss under constraints, and carry over what each keeps, by their names."""
    states = {name: _under(session.state, name) for name in constraints}
    hooks = [one.hooks(session, loss, states[name]) for name, one in constraints.items()]
    session.train(
        loss,
        gradient_hook=_in_turn([one.gradient for one in hooks]),
        update_hook=_in_turn([one.update for one in hooks]),
        penalty=_sum([one.penalty for one in hooks]),
    )
    kept = {
        f"{name}/{key}": value
        for name, one in constraints.items()
        for key, value in one.carries(session, loss, states[name]).items()
    }
    if kept:
        session.carry(kept)


def _under(state: Tensors, name: str) -> dict[str, Tensor]:
    start = f"{name}/"
    return {key.removeprefix(start): state[key] for key in sorted(state) if key.startswith(start)}


def _in_turn(hooks: Sequence[Callable[[T], None] | None]) -> Callable[[T], None] | None:
    given = [hook for hook in hooks if hook is not None]

    def each(tensors: T) -> None:
        for hook in given:
            hook(tensors)

    return each if given else None


def _sum(penalties: Sequence[Penalty | None]) -> Penalty | None:
    given = [penalty for penalty in penalties if penalty is not None]

    def total(tensors: Tensors) -> Tensor:
        first, *rest = [penalty(tensors) for penalty in given]
        return sum(rest, start=first)

    return total if given else None


class _Constraint(Settings):
    """A constraint that works anywhere, does nothing and carries nothing."""

    def problems(self, _unlearn: UnlearnSettings) -> Iterable[Problem]:
        """Nothing is wrong."""
        return ()

    def hooks(self, _session: Session, _loss: Loss, _state: Tensors) -> Hooks:
        """Return nothing to do."""
        return Hooks()

    def carries(self, _session: Session, _loss: Loss, _state: Tensors) -> Tensors:
        """Return nothing to keep."""
        return {}


class L1(_Constraint):
    """`weight * sum |theta|` over trained tensors: of LoRA the entries of A and B, not of BA.

    A sum, as CLEAR has it (Dontsov et al. 2024, arXiv 2410.18057), so that the weight means another
    strength for another number of tensors.
    """

    kind: Literal["l1"] = "l1"
    weight: Annotated[float, Field(ge=0), Span(1e-6, 1e-2)] = 1e-4

    def hooks(self, _session: Session, _loss: Loss, _state: Tensors) -> Hooks:
        """Return the penalty."""
        import torch

        def penalty(tensors: Tensors) -> Tensor:
            sums = [tensor.float().abs().sum() for tensor in tensors.values()]
            return self.weight * torch.stack(sums).sum()

        return Hooks(penalty=penalty)


class L2Previous(_Constraint):
    """`weight / 2 * sum (theta - theta_before)^2`: stay near what the request began with.

    Of a fresh adapter that is B = 0 and A as drawn; of a continued one, or of whole tensors, what
    the request before left.
    """

    kind: Literal["l2_previous"] = "l2_previous"
    weight: Annotated[float, Field(ge=0), Span(1e-3, 10.0)] = 0.1

    def hooks(self, session: Session, _loss: Loss, _state: Tensors) -> Hooks:
        """Return the penalty."""
        return Hooks(penalty=_quadratic(session.initial, None, self.weight))


class Ewc(_Constraint):
    """Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv 1612.00796).

    `weight / 2 * sum_i F_i (theta_i - theta_i*)^2` with F the diagonal of the Fisher information,
    taken as the mean square of batch gradients. `retain` protects what the retain batch shows, F
    and theta* being those at the request's beginning. `requests` protects what earlier requests
    did: each adds the F of its own loss at its end, and theta* is the last one's end.
    """

    kind: Literal["ewc"] = "ewc"
    weight: Annotated[float, Field(ge=0), Span(1.0, 1e4)] = 100.0
    protects: Literal["retain", "requests"] = "retain"
    batches: Annotated[int, Field(ge=1)] = 8
    """Batches that the Fisher information is estimated on."""

    def problems(self, unlearn: UnlearnSettings) -> Iterable[Problem]:
        """Refuse what a fresh adapter would make of Fisher information from another one."""
        if self.protects == "requests":
            yield from _needs_same_tensors(unlearn, "Fisher information is carried over")

    def hooks(self, session: Session, _loss: Loss, state: Tensors) -> Hooks:
        """Return the penalty; none at a first request where earlier ones are protected."""
        fisher = state
        if self.protects == "retain":
            fisher = session.gradients(RetainNll(), batches=self.batches, squared=True)
        if not fisher:
            return Hooks()
        return Hooks(penalty=_quadratic(session.initial, fisher, self.weight))

    def carries(self, session: Session, loss: Loss, state: Tensors) -> Tensors:
        """Return the Fisher information of all requests so far, added up."""
        if self.protects == "retain":
            return {}
        own = session.gradients(loss, batches=self.batches, squared=True)
        return {name: state[name] + value if state else value for name, value in own.items()}


class OrthogonalLora(_Constraint):
    """`weight * sum over earlier requests and layers ||A_earlier A^T||_F^2`: adapters side by side.

    The orthogonality of O-LoRA (Wang et al. 2023, arXiv 2310.14152) as O3 has it for unlearning
    (Gao et al. 2024, arXiv 2407.10223, whose detector is not part of it): each request's update
    reads directions of the input that no earlier one reads. The sum grows with rank and requests.
    """

    kind: Literal["orthogonal_lora"] = "orthogonal_lora"
    weight: Annotated[float, Field(ge=0), Span(0.01, 10.0)] = 0.1

    def problems(self, unlearn: UnlearnSettings) -> Iterable[Problem]:
        """Refuse whole tensors and continued adapters: neither has an A of each request's own."""
        if unlearn.update != "lora":
            what = "orthogonality is between low-rank updates"
            yield Problem(what, "unlearn.update", unlearn.update, "lora")
        elif unlearn.adapter != "fresh":
            what = "each request needs an adapter of its own"
            yield Problem(what, "unlearn.adapter", unlearn.adapter, "fresh")

    def hooks(self, _session: Session, _loss: Loss, state: Tensors) -> Hooks:
        """Return the penalty; none at a first request."""
        import torch

        if not state:
            return Hooks()

        def penalty(tensors: Tensors) -> Tensor:
            sums = [
                (state[name].to(tensor.device) @ tensor.float().T).square().sum()
                for name, tensor in tensors.items()
                if name in state
            ]
            return self.weight * torch.stack(sums).sum()

        return Hooks(penalty=penalty)

    def carries(self, session: Session, _loss: Loss, state: Tensors) -> Tensors:
        """Return the A of all requests so far, one under the other, [requests * rank, in]."""
        import torch

        own = {
            name: value.float().cpu()
            for name, value in session.current.items()
            if ".lora_A." in name
        }
        return {
            name: torch.cat([state[name], value]) if state else value for name, value in own.items()
        }


class Projection(_Constraint):
    """Each step's gradient loses what it has along directions remembered from earlier requests.

    Orthogonal gradient descent (Farajtabar et al. 2020, arXiv 1910.07104) over requests: what a
    later one does leaves the loss of earlier ones unchanged to first order. One direction is the
    mean gradient of a request's own loss when it is done; several are the leading right singular
    vectors of its batches' gradients, the subspace that ONPO projects on.
    """

    kind: Literal["projection"] = "projection"
    batches: Annotated[int, Field(ge=1)] = 4
    """Batches whose gradients are looked at."""
    directions: Annotated[int, Field(ge=1), Span(1, 4)] = 1
    """Remembered of each request; at most `batches`."""

    def problems(self, unlearn: UnlearnSettings) -> Iterable[Problem]:
        """Refuse fresh adapters: their gradients at one request mean nothing at the next."""
        yield from _needs_same_tensors(unlearn, "gradients are remembered")
        if self.directions > self.batches:
            what = "there are no more directions than batches"
            yield Problem(what, "settings", f"{self.directions} directions", f"{self.batches}")

    def hooks(self, session: Session, _loss: Loss, state: Tensors) -> Hooks:
        """Return the projection; none at a first request."""
        if not state:
            return Hooks()
        import torch

        names, basis = sorted(session.initial), list(state.values())

        def project(gradients: dict[str, Tensor]) -> None:
            kept = _without(_flat(gradients, names), basis)
            sizes = [gradients[name].numel() for name in names]
            for name, part in zip(names, torch.split(kept, sizes), strict=True):
                gradients[name].copy_(part.view_as(gradients[name]))

        return Hooks(gradient=project)

    def carries(self, session: Session, loss: Loss, state: Tensors) -> Tensors:
        """Return the directions so far and this request's own, orthonormal."""
        basis = list(state.values())
        for direction in self._own(session, loss):
            # Twice, since what is left of a nearly dependent one is rounding.
            rest = _without(_without(direction, basis), basis)
            if rest.norm() > 1e-6 * direction.norm():
                basis.append(rest / rest.norm())
        return {f"{number:04d}": vector for number, vector in enumerate(basis)}

    def _own(self, session: Session, loss: Loss) -> list[Tensor]:
        import torch

        names = sorted(session.initial)
        if self.directions == 1:
            return [_flat(session.gradients(loss, batches=self.batches), names)]
        rows = torch.stack(
            [
                _flat(session.gradients(loss, batches=1, first=number), names)
                for number in range(self.batches)
            ]
        )
        # Of the small Gram matrix: the rows are as long as the model has trained numbers.
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        leading = vectors[:, values.argsort(descending=True)[: self.directions]]
        return list((rows.T @ leading).T)


class RetainNll(Settings):
    """The retain examples' mean negative log-likelihood and nothing else."""

    @property
    def needs(self) -> Needs:
        """A retain batch."""
        return Needs(retain=True)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the one term."""
        from pulse_unlearn.methods import losses

        return losses.retain_terms(views, 1.0)


def needs_retain(constraints: Iterable[Constraint]) -> bool:
    """Tell whether any of the constraints looks at retain batches."""
    return any(isinstance(one, Ewc) and one.protects == "retain" for one in constraints)


def _needs_same_tensors(unlearn: UnlearnSettings, what: str) -> Iterator[Problem]:
    if unlearn.update == "lora" and unlearn.adapter == "fresh":
        yield Problem(
            f"{what} for tensors that are trained on",
            "unlearn.adapter",
            got="fresh",
            allowed="continued, or unlearn.update: full",
            fix="add unlearn: {adapter: continued}",
        )


def _quadratic(start: Tensors, importance: Tensors | None, weight: float) -> Penalty:
    import torch

    def penalty(tensors: Tensors) -> Tensor:
        sums = []
        for name, tensor in tensors.items():
            squares = (tensor - start[name]).float().square()
            if importance is not None:
                squares = squares * importance[name].to(squares.device)
            sums.append(squares.sum())
        return weight / 2 * torch.stack(sums).sum()

    return penalty


def _flat(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    import torch

    return torch.cat([tensors[name].flatten().float() for name in names])


def _without(vector: Tensor, basis: Iterable[Tensor]) -> Tensor:
    for direction in basis:
        along = direction.to(vector.device)
        vector = vector - (vector @ along) * along
    return vector
