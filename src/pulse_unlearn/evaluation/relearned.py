"""What a relearning attack says of two models: compared where as much was taught to both.

After as many steps one model may have learned what it was taught and the other not. Everything here
is about one seed and takes accuracies that were measured, no answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Taught:
    """A model after some steps of the attack: accuracies on what it was taught, and on the rest."""

    taught: float
    asked: float


@dataclass(frozen=True, slots=True)
class Equally:
    """Two models where as much was taught."""

    level: float
    """Accuracy on the taught half, the highest that both reach."""
    asked: float
    """The model's on the half that nobody taught."""
    control: float
    """The control's."""

    @property
    def more(self) -> float:
        """What the model knows beyond the control."""
        return self.asked - self.control


def where_taught(curve: Sequence[Taught], level: float) -> float | None:
    """Return the accuracy on the other half where the taught one first comes up to a level.

    By lines between measured steps. At its first point if the level is reached there already, as
    nothing had to be taught; None if it never is.
    """
    if curve and curve[0].taught >= level:
        return curve[0].asked
    for one, other in pairwise(curve):
        if one.taught < level <= other.taught:
            share = (level - one.taught) / (other.taught - one.taught)
            return one.asked + share * (other.asked - one.asked)
    return None


def taught_equally(curve: Sequence[Taught], control: Sequence[Taught]) -> Equally | None:
    """Compare a curve with its control at the highest level of teaching that both reach."""
    if not curve or not control:
        return None
    level = min(max(one.taught for one in of) for of in (curve, control))
    asked, of_control = where_taught(curve, level), where_taught(control, level)
    if asked is None or of_control is None:
        return None
    return Equally(level, asked, of_control)
