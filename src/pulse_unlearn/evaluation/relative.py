"""Forgotten and kept: an accuracy after unlearning relative to the one before (Figure 4).

The width of such a ratio's interval goes with the candidate ratio instead of the ratio seen, as
`intervals` has it for a single accuracy. Source: Nam and Blackwelder 2002 (ratio of paired shares).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

import numpy as np
from scipy import special

from pulse_unlearn.evaluation.comparisons import Pairing, pair_by_question
from pulse_unlearn.evaluation.intervals import (
    LEVEL,
    MIN_INDIVIDUALS,
    NO_VARIATION,
    Design,
    Estimate,
    FloatArray,
    few_clusters,
    join_reasons,
    mean_of_strata,
)
from pulse_unlearn.evaluation.measures import (
    ALL,
    GENERAL,
    MEASURES,
    READINGS,
    cluster_of,
    measurement,
    missing_modality,
    strata_of,
    unit_of,
    values_of,
)
from pulse_unlearn.records import MODALITIES, Measurement, QuestionScore, Sets

PRECISION = 1e-6
"""The ends of the interval of a ratio are this exact."""
FORGET_SETS: frozenset[str] = frozenset({"forget", "forgotten_earlier", "just_requested"})
"""Sets whose loss is the aim; of every other set we say how much was kept."""

Direction = Literal["forgotten", "kept"]

_ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "", ("accuracy",)),
    ("", "_over_chance", ("accuracy",)),
    ("rotated_", "", ("rotated_accuracy",)),
    ("latent_", "", READINGS),
    ("latent_", "_over_chance", READINGS),
)
"""Prefix and suffix of a row's name, and the readings of which the highest counts."""


def relative_measures(
    before: Iterable[QuestionScore],
    after: Iterable[QuestionScore],
    *,
    sets: Sets,
) -> list[Measurement]:
    """Return the percentage forgotten (forget sets) or kept (all other sets and `general`).

    forgotten = 100 (1 - after/before), kept = 100 after/before, accuracy being the mean of the
    two modalities; this reproduces Table 3 and Figure 4. Rows per set: `forgotten_pct` or
    `kept_pct` in the paper's reading; with the prefix `rotated_` by that reading, and `latent_`
    by the highest reading before and the highest after, which are seldom the same one; the first
    and the last also `_over_chance`, chance taken off both accuracies. General questions are the
    scores without an individual; their rows are there if there are any. Raises DataError unless
    both hold the same questions.
    """
    pairing = pair_by_question(before, after)
    measurements = []
    for name, people in sets.items():
        direction: Direction = "forgotten" if name in FORGET_SETS else "kept"
        rows = pairing.where([bool(s.individual in people) for s in pairing.before])
        for modality in (*MODALITIES, ALL):
            inside = rows.where([modality in (ALL, s.modality) for s in rows.before])
            measurements += _rows(inside, direction, of_set=name, modality=modality)
    general = pairing.where([not score.individual for score in pairing.before])
    if general.before:
        measurements += _rows(general, "kept", of_set=GENERAL, modality=ALL)
    return measurements


def _rows(
    pairing: Pairing, direction: Direction, *, of_set: str, modality: str
) -> list[Measurement]:
    reason = missing_modality(pairing.before, modality)
    best = {} if reason else {of: _highest(pairing, of) for of in {of for _, _, of in _ROWS}}
    rows = []
    for prefix, suffix, readings in _ROWS:
        found = Estimate(None, reason=reason)
        if not reason:
            found = _percent(pairing, best[readings], direction, with_chance=bool(suffix))
        name = f"{prefix}{direction}_pct{suffix}"
        rows.append(measurement(name, pairing.before, found, of_set=of_set, modality=modality))
    return rows


@dataclass(frozen=True, slots=True)
class _Highest:
    """The values of the highest readings before and after, NaN where they lack, and their names."""

    before: FloatArray
    after: FloatArray
    which: str
    """Both names; empty where one reading alone was to be looked at."""


def _percent(
    pairing: Pairing, best: _Highest, direction: Direction, *, with_chance: bool
) -> Estimate:
    """Return 100 after/before, or 100 (1 - after/before), by these readings."""
    there = ~(np.isnan(best.before) | np.isnan(best.after))
    having = list(compress(pairing.before, there))
    if not having:
        return Estimate(None, reason="not asked")
    ratio = ratio_interval(
        best.before[there],
        best.after[there],
        [cluster_of(score) for score in having],
        strata=strata_of(having),
        chance=np.array([score.chance for score in having]) if with_chance else None,
        unit=unit_of(having),
    )
    lacking = len(pairing.before) - len(having)
    note = f"without {lacking} questions that lack it" if lacking else ""
    reason = join_reasons(best.which, ratio.reason, note)
    ends = (ratio.value, ratio.low, ratio.high)
    value, low, high = (None if end is None else 100 * end for end in ends)
    if direction == "forgotten":
        value, high, low = (None if end is None else 100 - end for end in (value, low, high))
    return Estimate(value, low, high, reason)


def _highest(pairing: Pairing, readings: Sequence[str]) -> _Highest:
    """Return the readings of the highest mean of modality means, one before and one after.

    Over the questions that both were asked so; all are NaN if no reading was asked in every
    modality.
    """
    strata = strata_of(pairing.before)
    values: list[FloatArray] = [np.full(len(strata), np.nan)] * 2
    names, most = [readings[0]] * 2, [-np.inf] * 2
    for reading in readings:
        measure = MEASURES.get(reading)
        found = [values_of(side, measure) for side in (pairing.before, pairing.after)]
        there = ~(np.isnan(found[0]) | np.isnan(found[1]))
        kinds = list(compress(strata, there))
        if {*kinds} != {*strata}:
            continue
        for side, asked in enumerate(found):
            mean = mean_of_strata(asked[there], kinds)
            if mean > most[side]:
                most[side], names[side] = mean, reading
                values[side] = np.where(there, asked, np.nan)
    which = f"{names[0]} before, {names[1]} after" if len(readings) > 1 else ""
    return _Highest(values[0], values[1], which)


@dataclass(frozen=True, slots=True)
class _RatioTest:
    """The score test of `ratio_interval`; `shares` are those of `_outcomes`, `factor` t^2 / n."""

    before: float
    after: float
    chance: float
    shares: tuple[float, ...]
    factor: float

    def excess(self, ratio: float) -> float:
        """Return T^2 - t^2 S / n, positive where `ratio` is ruled out."""
        gap = self.after - self.chance - ratio * (self.before - self.chance)
        return gap * gap - self.factor * _spread_if(ratio, self.shares, self.chance)

    def ends(self, value: float, spread: float) -> tuple[float | None, float | None]:
        """Return where `excess` turns positive below and above `value`, where S is `spread`."""
        inside = (value, -self.factor * spread)
        steps = [0.05 * 2.0**power for power in range(16)]
        high = _first_outside(self.excess, inside, [value + step for step in steps])
        if self.chance:
            return _first_outside(self.excess, inside, [value - step for step in steps]), high
        if value <= NO_VARIATION:
            return 0.0, high
        # Without chance taken off a ratio is above 0, which is ruled out if anything is left.
        nearer = [value * 0.5**power for power in range(1, 60)]
        return _first_outside(self.excess, inside, nearer), high


def ratio_interval(
    before: FloatArray,
    after: FloatArray,
    clusters: Sequence[Hashable],
    *,
    strata: Sequence[Hashable] | None = None,
    chance: FloatArray | None = None,
    level: float = LEVEL,
    unit: str = "people",
) -> Estimate:
    """Return after / before over the same questions, 1 being no loss, clustered by individual.

    All arrays hold one number in [0, 1] per question; both accuracies A (after) and B (before)
    are means of stratum means. With `chance` the value is (A - c) / (B - c), c being the mean of
    `chance`, a known number. It is None where B is not above 0 or c.

    The interval holds all ratios r for which T = (A - c) - r (B - c) is within t sqrt(S(r) / n)
    of 0. S(r) is the variance of one question's share of T if r were true (`_spread_if`); n is
    the effective number of questions, S / variance of T at the ratio seen, clustered and widened
    as for accuracies; t has G - 1 degrees of freedom. Without clusters and chance this is the
    score interval of Nam and Blackwelder 2002, sound also where almost nothing is left or lost.
    Where B is not clearly above c, no ratio is ruled out, and there is no interval. If people do
    not differ (all lost, all kept), n is their number.
    """
    if before.size == 0:
        return Estimate(None, reason="no questions")
    design = Design.of(clusters, strata)
    guess = 0.0 if chance is None else float(design.means(chance).mean())
    was, now = (float(design.means(values).mean()) for values in (before, after))
    start, rest = was - guess, now - guess
    if start <= NO_VARIATION:
        least = "zero" if chance is None else "chance"
        return Estimate(None, reason=f"not above {least} before: nothing to lose")
    note = few_clusters(design.people, unit)
    value = rest / start
    if design.people < MIN_INDIVIDUALS:
        return Estimate(value, reason=note)
    shares = _outcomes(design, before, after)
    residuals = design.residuals(after - value * before)
    terms = _share_of_t(value, guess)
    spread = sum(share * term * term for share, term in zip(shares, terms, strict=True))
    number = design.effective_answers(residuals, spread=spread, rarity=min(spread, now, 1 - now))
    quantile = float(special.stdtrit(design.people - 1, (1 + level) / 2))
    low, high = _RatioTest(was, now, guess, shares, quantile**2 / number).ends(value, spread)
    if design.variance(residuals) < NO_VARIATION**2:
        note = join_reasons("no variation seen", note)
    if low is None or high is None:
        return Estimate(value, reason=join_reasons("no interval: hardly above chance before", note))
    return Estimate(value, low, high, note)


def _outcomes(design: Design, before: FloatArray, after: FloatArray) -> tuple[float, ...]:
    """Return the shares of questions right both times, only after, only before, never."""
    both = float(design.means(np.minimum(before, after)).mean())
    gained = float(design.means(np.maximum(after - before, 0.0)).mean())
    lost = float(design.means(np.maximum(before - after, 0.0)).mean())
    shares = (both, gained, lost, 1 - both - gained - lost)
    return tuple(share if share > NO_VARIATION else 0.0 for share in shares)


def _share_of_t(ratio: float, chance: float) -> tuple[float, float, float, float]:
    """Return (after - c) - ratio (before - c) of a question, in the order of `_outcomes`."""
    never = -chance * (1 - ratio)
    return 1 - ratio + never, 1 + never, -ratio + never, never


def _spread_if(ratio: float, shares: Sequence[float], chance: float) -> float:
    """Return the mean square of a question's share of T if `ratio` were the true one.

    The outcomes' shares are then the likeliest ones for which T is 0: p / (1 + m e), p being the
    share seen and e the share of T, m (`tilt`) such that the mean of e is 0. If there is no such
    m, an outcome nobody had carries the rest.
    """
    terms = _share_of_t(ratio, chance)
    least, most = min(terms), max(terms)
    seen = [(p, e) for p, e in zip(shares, terms, strict=True) if p and e]
    low, high, tilt = -1 / most, -1 / least, 0.0
    # The mean of e falls with the tilt m: Newton's step, or halving where it leaves the bracket.
    for _ in range(60):
        mean = slope = 0.0
        for p, e in seen:
            part, lean = p * e / (1 + tilt * e), e / (1 + tilt * e)
            mean, slope = mean + part, slope - part * lean
        low, high = (tilt, high) if mean > 0 else (low, tilt)
        step = mean / slope if slope else 0.0
        last, tilt = tilt, tilt - step if low < tilt - step < high else (low + high) / 2
        if abs(tilt - last) < PRECISION * (1 + abs(tilt)):
            break
    fitted = [(p * e / (1 + tilt * e), e) for p, e in seen]
    mean = sum([part for part, _ in fitted])
    return sum([part * e for part, e in fitted]) + abs(mean * (least if mean > 0 else most))


def _first_outside(
    excess: Callable[[float], float], found: tuple[float, float], trials: Sequence[float]
) -> float | None:
    """Return where `excess` turns positive between a place and the first of `trials` outside.

    `found` is the place and its `excess`. None if no trial is outside. Ridders' method (1979).
    """
    inside, below = found
    for outside in trials:
        above = excess(outside)
        if above > 0:
            break
        inside, below = outside, above
    else:
        return None
    while abs(outside - inside) > PRECISION:
        middle = (inside + outside) / 2
        centre = excess(middle)
        root = math.sqrt(centre * centre - below * above)
        point = middle - (middle - inside) * centre / root if root else middle
        for place, height in ((middle, centre), (point, excess(point))):
            if height > 0:
                outside, above = place, height
            else:
                inside, below = place, height
    return inside if -below < above else outside
