"""Which questions are about the people of a request: whitened similarity with a threshold.

A person's questions differ in what is asked and in which picture is shown. Those directions are
damped, by the scatter of views around each person's mean, and a question is taken by a request if
it is more like one of its people than nearly all views of others are. Everything is closed form.

Shape letters: N views, D width of an embedding, P people, R damped directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_unlearn.errors import MethodError, Problem

RANK = 256
"""Most directions that are damped: those of the largest scatter."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What a request keeps of the embeddings of one kind of question."""

    centre: Tensor
    """Mean of all views it was fitted on, [D]."""
    directions: Tensor
    """Orthonormal directions in which views of one person differ, [R, D]."""
    damping: Tensor
    """How much of each is taken away, [R], 0 to 1."""
    store: Tensor
    """Each person's mean view, damped and of length 1, [P, D]."""
    threshold: Tensor
    """Cosine similarity above which a question is taken, []."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A gate, and what it does on the views it was made from."""

    gate: Gate
    caught: float
    """Share of the request's own views that it takes; those it was fitted on."""
    taken: float
    """Share of the calibrating views, of others, that it takes."""
    calibrated_on: int
    """How many those were."""


def damped(gate: Gate, states: Tensor) -> Tensor:
    """Return embeddings [N, D] around the centre, damped and of length 1."""
    return _damped(states, gate.centre, gate.directions, gate.damping)


def margins(gate: Gate, states: Tensor) -> Tensor:
    """Return how far each embedding's similarity to its likest person is above the threshold, [N].

    A question is taken where it is above 0.
    """
    return (damped(gate, states) @ gate.store.T).amax(-1) - gate.threshold


def fit_gate(
    own: Tensor,
    people: Sequence[str],
    others: Tensor,
    other_people: Sequence[str],
    *,
    shrinkage: float,
    false_share: float,
    margin: float,
) -> Fitted:
    """Fit a gate on the views [N, D] of a request's people and of others.

    With S the scatter of views around their person's mean, shrunk to
    (1 - shrinkage) S + shrinkage tr(S) / D, directions are scaled by its inverse square root; but
    for a factor, which no cosine sees, that takes away 1 - sqrt(shrinkage tr(S) / D / eigenvalue)
    of each. Every other person of the others is fitted on, all the rest calibrates, general
    questions (person "") included: no more than `false_share` of those views are taken. Few people
    say little about all others, so where the request's own views are all but `false_share` more
    like the store than that, the threshold stands `margin` of the gap higher.

    Raises MethodError if nothing is left to calibrate on.
    """
    fitting = set(list(dict.fromkeys(name for name in other_people if name))[1::2])
    fits = torch.tensor([name in fitting for name in other_people], dtype=torch.bool)
    calibrating = others[~fits]
    if not len(calibrating):
        raise MethodError(
            Problem(
                "there are no views of others to set a threshold by",
                fix="retain batches need people (unlearn.retain) or general questions",
            )
        )
    views = torch.cat([own, others[fits]])
    names = [*people, *(name for name in other_people if name in fitting)]
    centre = views.mean(0)
    directions, damping = _scatter(views, names, shrinkage)
    store = torch.stack([rows.mean(0) for rows in _by_person(own, people)])
    store = _damped(store, centre, directions, damping)
    blank = Gate(centre, directions, damping, store, torch.zeros((), dtype=own.dtype))
    ranked = margins(blank, calibrating).sort().values
    place = math.ceil((1 - false_share) * (len(ranked) + 1)) - 1
    highest = ranked[min(place, len(ranked) - 1)]
    lowest = margins(blank, own).sort().values[int(false_share * len(own))]
    threshold = highest + margin * (lowest - highest).clamp(min=0)
    gate = Gate(centre, directions, damping, store, threshold)
    return Fitted(
        gate,
        caught=float((margins(gate, own) > 0).double().mean()),
        taken=float((margins(gate, calibrating) > 0).double().mean()),
        calibrated_on=len(calibrating),
    )


def _scatter(views: Tensor, names: Sequence[str], shrinkage: float) -> tuple[Tensor, Tensor]:
    """Return the directions [R, D] of the scatter around each person's mean, and their damping."""
    around = torch.cat([rows - rows.mean(0) for rows in _by_person(views, names)])
    _, lengths, directions = torch.linalg.svd(around, full_matrices=False)
    variances = lengths.square() / len(around)
    floor = shrinkage * variances.sum() / views.shape[1]
    damping = 1 - (floor / ((1 - shrinkage) * variances + floor)).sqrt()
    # Without any scatter there is nothing to damp: 0 / 0.
    return directions[:RANK], damping[:RANK].nan_to_num(nan=0.0)


def _by_person(views: Tensor, names: Sequence[str]) -> list[Tensor]:
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return [views[rows] for rows in places.values()]


def _damped(states: Tensor, centre: Tensor, directions: Tensor, damping: Tensor) -> Tensor:
    around = states.to(centre.dtype) - centre
    around = around - (around @ directions.T * damping) @ directions
    return torch.nn.functional.normalize(around, dim=-1)
