"""The scoreboard at the head of the report: before, and each method after its last request."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_unlearn.report.estimates import LATENT, Estimate, Numbers, Place
from pulse_unlearn.report.verdicts import Judged, Verdicts


@dataclass(frozen=True, slots=True)
class Known:
    """How much of one set is right, in the two readings that are never mixed."""

    usable: Estimate | None
    """The paper's reading: what somebody who asks gets."""
    latent: Estimate | None
    """The highest reading: what is there, however it is asked for. None if only strict was."""
    by: tuple[str, ...]
    """Measures behind `latent`; several where seeds differ."""
    chance: float | None
    beyond_strict: bool
    """Whether any reading but the paper's was taken."""

    @property
    def is_hidden(self) -> bool:
        """Whether the highest reading lies above chance and above the usable one, as intervals."""
        low = self.latent.low if self.latent else None
        over_chance = low is not None and self.chance is not None and low > self.chance
        return over_chance and _above(self.latent, self.usable)


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One method after its last request; or, not judged, the model before or the retain model."""

    place: Place
    forget: Known
    retain: Known
    unseen: Known
    general: Known
    letter_share: Estimate | None
    letters: tuple[str, ...]
    unreadable: Estimate | None
    judged: Judged | None


def scoreboard(numbers: Numbers, verdicts: Verdicts) -> list[ScoreRow]:
    """Return for each scenario the model before, the retain model, then each method and scope."""
    rows = []
    for scenario in numbers.scenarios():
        for place in numbers.models(scenario):
            rows.append(_row(numbers, place, verdicts.at(place) if place.request else None))
    return rows


def known(numbers: Numbers, place: Place, name: str) -> Known:
    """Look up both readings of one set; strict alone says nothing about what is latent."""
    beyond = numbers.asked_beyond_strict(place, name)
    return Known(
        usable=numbers.get(place, name, "all", "accuracy"),
        latent=numbers.get(place, name, "all", LATENT) if beyond else None,
        by=numbers.highest(place, name) if beyond else (),
        chance=numbers.value(place, name, "all", "chance"),
        beyond_strict=beyond,
    )


def has_fallen(before: Estimate | None, after: Estimate | None) -> bool:
    """Return whether the interval after lies below the one before."""
    return _above(before, after)


def _above(more: Estimate | None, less: Estimate | None) -> bool:
    if more is None or less is None or more.low is None or less.high is None:
        return False
    return more.low > less.high


def _row(numbers: Numbers, place: Place, judged: Judged | None) -> ScoreRow:
    return ScoreRow(
        place=place,
        forget=known(numbers, place, "forget"),
        retain=known(numbers, place, "retain"),
        unseen=known(numbers, place, "unseen"),
        general=known(numbers, place, "general"),
        letter_share=numbers.get(place, "forget", "all", "letter_share"),
        letters=numbers.letters(place, "forget"),
        unreadable=numbers.get(place, "forget", "all", "unreadable"),
        judged=judged,
    )
