"""What a model says is not what it knows: every reading of the answers to one question.

`strict` is the paper's reading: greedy text, the file's order. It cannot tell a lost memory from a
broken habit: a model that says one letter to everything scores near chance and may know it all.
Beside it stand readings that one letter cannot fool:

* `rotated`: log-probabilities averaged over all cyclic orders of the options. A preference for a
  letter adds the same number to whatever stands under it, so over all orders it adds the same to
  every option and drops out (Zheng et al. 2024, arXiv 2309.03882, average over permutations);
* `circular`: right in every order (MMBench, arXiv 2307.06281);
* `words`: the bare question, no options shown, each option's text tried as the answer;
* `mentions`: the text names the true option anywhere, whatever the parser made of it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.scoring import answer_log_probs, true_letters, true_places
from pulse_unlearn.records import Option, Prediction, QuestionScore, Score, Verdict

TIE = 1e-9
"""Averages (nats) that differ by less are equal: rounding."""


@dataclass(frozen=True, slots=True)
class Order:
    """One order of a question's options, with what was read under it."""

    options: tuple[Option, ...]
    log_probs: tuple[float, ...]
    """Natural, in this order, not renormalised."""
    true_places: tuple[int, ...]
    """More than one where options are equal to the true one."""
    rotation: int = 0
    """Places by which the texts are moved up against the first order."""


@dataclass(frozen=True, slots=True)
class Averaged:
    """What all orders say together."""

    credit: float
    """1 if the true option is the likeliest; its share if options tie for that; else 0."""
    probability: float
    """Of the true option, renormalised over the options."""


def average_over(orders: Sequence[Order]) -> Averaged:
    """Average each option's renormalised log-probability over the orders; at least one is needed.

    An undefined log-probability (NaN) earns nothing.
    """
    first = orders[0]
    sums = [0.0] * len(first.options)
    for order in orders:
        total = _log_sum(order.log_probs)
        places = _places(first.options, order.options, order.rotation - first.rotation)
        for place, value in zip(places, order.log_probs, strict=True):
            sums[place] += value - total if math.isfinite(value) else value
    means = [value / len(orders) for value in sums]
    return Averaged(credit_of(means, first.true_places), _share(means, first.true_places))


def credit_of(values: Sequence[float], places: Sequence[int]) -> float:
    """Return 1 if the largest value stands in `places`, their share of a tie, else 0."""
    if any(math.isnan(value) for value in values):
        return 0.0
    best = max(values)
    ties = [number for number, value in enumerate(values) if value >= best - TIE]
    return len({*ties} & {*places}) / len(ties)


def by_question(
    predictions: Sequence[Prediction], scores: Sequence[Score]
) -> tuple[QuestionScore, ...]:
    """Bring all answers to a question together, in order of first appearance.

    `scores` are those of the `predictions`, in the same order. Raises DataError if an example
    stands there twice.
    """
    groups: dict[str, list[tuple[Prediction, Score]]] = defaultdict(list)
    seen: set[str] = set()
    twice: list[str] = []
    for prediction, score in zip(predictions, scores, strict=True):
        if prediction.example_id in seen:
            twice.append(prediction.example_id)
        seen.add(prediction.example_id)
        groups[prediction.question_id].append((prediction, score))
    if twice:
        fix = "pass the answers of one stage, each example once"
        raise DataError([Problem("example scored twice", f"'{name}'", fix=fix) for name in twice])
    return tuple(map(_question, groups.values()))


def _question(answers: Sequence[tuple[Prediction, Score]]) -> QuestionScore:
    shown = [(one, score) for one, score in answers if one.asked_as == "options"]
    base = next((pair for pair in shown if pair[0].rotation == 0), None)
    bare = next((one for one in answers if one[0].asked_as == "words"), None)
    if bare is None and base is not None and base[0].option_tokens:
        bare = base  # the scored prompt itself is answered in words
    first, of_first = base or bare or answers[0]
    complete = _is_complete([one for one, _ in shown])
    average = average_over([_order(one) for one, _ in shown]) if complete else None
    return QuestionScore(
        question_id=first.question_id,
        individual=first.individual,
        modality=first.modality,
        category=first.category,
        answer=first.answer,
        chance=of_first.chance,
        verdict=base[1].verdict if base else None,
        choice=base[1].choice if base else "",
        letter=_letter(base[0]) if base else None,
        letter_probability=base[1].true_probability if base else None,
        turned=tuple((score.answer, score.choice, score.verdict) for _, score in shown),
        rotated=average.credit if average else None,
        rotated_probability=average.probability if average else None,
        circular=float(all(_right(score.verdict) for _, score in shown)) if complete else None,
        flipped=_flipped(first, shown) if complete else None,
        mentions=fmean(map(_names_truth, shown)) if shown else None,
        mentions_others=fmean(map(_names_others, shown)) if shown else None,
        **_in_words(bare),
    )


def _in_words(bare: tuple[Prediction, Score] | None) -> dict[str, float | None]:
    if bare is None:
        names = ("words", "words_per_token", "words_probability", "words_named")
        return dict.fromkeys(names)
    one, score = bare
    true, sums = true_places(one), one.option_log_probs
    means = [value / count for value, count in zip(sums, one.option_tokens, strict=True)]
    return {
        "words": credit_of(sums, true),
        "words_per_token": credit_of(means, true),
        "words_probability": _share(sums, true),
        "words_named": float(_right(score.verdict)),
    }


def _letter(base: Prediction) -> float:
    return credit_of(answer_log_probs(base), true_places(base))


def _is_complete(shown: Sequence[Prediction]) -> bool:
    """Tell whether every order was asked: two or more, as many as there are options that move.

    Each of those stood under as many letters as there are orders; others stay where they are.
    """
    under: dict[str, set[str]] = defaultdict(set)
    for one in shown:
        for option in one.options:
            under[option.text].add(option.letter)
    moving = [option for option in shown[0].options if len(under[option.text]) > 1] if shown else []
    return len(shown) == len(moving) > 1


def _order(one: Prediction) -> Order:
    return Order(one.options, one.option_log_probs, true_places(one), one.rotation)


def _places(first: Sequence[Option], turned: Sequence[Option], rotation: int) -> list[int]:
    """Return where each option of `turned` stands in `first`, moved up by `rotation` places.

    Where that does not fit, options are matched by their texts, equal ones in their order.
    """
    count = len(first)
    moved = [(place + rotation) % count for place in range(count)]
    if all(first[place].text == one.text for place, one in zip(moved, turned, strict=True)):
        return moved
    left: dict[str, list[int]] = defaultdict(list)
    for place, option in enumerate(first):
        left[option.text].append(place)
    return [left[option.text].pop(0) for option in turned]


def _flipped(first: Prediction, shown: Sequence[tuple[Prediction, Score]]) -> float | None:
    chosen = []
    for one, score in shown:
        if score.choice:
            place = [option.letter for option in one.options].index(score.choice)
            chosen.append(one.options[place].text)
    return float(len(set(chosen)) > 1) if len(chosen) > 1 else None


def _names_truth(answer: tuple[Prediction, Score]) -> bool:
    one, score = answer
    return bool({*true_letters(one)} & {*score.mentioned})


def _names_others(answer: tuple[Prediction, Score]) -> float:
    one, score = answer
    true = {*true_letters(one)}
    return len({*score.mentioned} - true) / max(len(one.options) - len(true), 1)


def _right(verdict: Verdict) -> bool:
    return verdict == "correct"


def _share(values: Sequence[float], places: Sequence[int]) -> float:
    """Return exp(values) at `places` over the sum of all; equal shares if all are impossible."""
    total = _log_sum(values)
    if not math.isfinite(total):
        return len(places) / len(values)
    return math.fsum(math.exp(values[place] - total) for place in places)


def _log_sum(values: Sequence[float]) -> float:
    best = max(values)
    if not math.isfinite(best):
        return best
    return best + math.log(math.fsum(math.exp(value - best) for value in values))
