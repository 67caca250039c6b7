"""From stored answers to scores: what one answer says, and what all answers to a question say.

Two things are read off every answer and never mixed in one number: the *generated* text, by a named
parser, and the option whose answer (its letter; its text where the prompt is answered in words) has
the highest log-probability. The parser `likelihood` looks at no text: the likeliest option is the
answer.

A model that answers everything with one letter scores near chance and may know it all. All answers
to a question are therefore read in other ways, too (`records.QuestionScore`): in every order of the
options (MMBench, arXiv 2307.06281), averaged over the orders, where a preference for a letter adds
the same to every option and drops out (Zheng et al. 2024, arXiv 2309.03882), and in words.
"""

from __future__ import annotations

import math
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.parsers import (
    DEFAULT_PARSER,
    PARSERS,
    UNPARSABLE,
    Parsed,
    is_letter,
    mentioned,
    named_in_words,
    parse,
)
from pulse_unlearn.records import Option, Prediction, QuestionScore, Score, Verdict, key_of

LIKELIHOOD = "likelihood"
"""Named like a parser; it reads log-probabilities, so it stands beside the parsers of texts."""
TIE = 1e-9
"""Averages (nats) that differ by less are equal: rounding."""
_CAPITALS = frozenset(string.ascii_uppercase)


# --- one answer


def read_likelihood(prediction: Prediction) -> Parsed:
    """Take the option of highest log-probability, whatever was generated: all can be read.

    The first of equals wins: deterministic, and ties show in `true_probability`.
    """
    log_probs = answer_log_probs(prediction.option_log_probs, prediction.end_log_probs)
    return Parsed("answered", prediction.options[log_probs.index(max(log_probs))].letter)


def answer_log_probs(log_probs: Sequence[float], ends: Sequence[float]) -> tuple[float, ...]:
    """Return each option's log-probability as a whole answer: a text's with its end of turn."""
    if not ends:
        return tuple(log_probs)
    return tuple(text + end for text, end in zip(log_probs, ends, strict=True))


def true_places(prediction: Prediction) -> tuple[int, ...]:
    """Return the places of the true option and of those whose text is the same."""
    options = prediction.options
    truth = next(option.text for option in options if option.letter == prediction.answer)
    return tuple(place for place, option in enumerate(options) if option.text == truth)


def parser_descriptions() -> dict[str, str]:
    """Return every name that answers can be read by, with what it does."""
    texts = {name: parser.__doc__ or "" for name, parser in PARSERS}
    return {**texts, LIKELIHOOD: read_likelihood.__doc__ or ""}


def score(prediction: Prediction, *, parser: str = DEFAULT_PARSER) -> Score:
    """Score one prediction; raises DataError if its options or log-probabilities are unusable."""
    return score_all([prediction], parser=parser)[0]


def score_all(
    predictions: Iterable[Prediction], *, parser: str = DEFAULT_PARSER
) -> tuple[Score, ...]:
    """Score predictions in order; raises DataError naming every one that cannot be scored."""
    predictions = tuple(predictions)
    problems = [problem for prediction in predictions for problem in _check(prediction)]
    if problems:
        raise DataError(problems)
    return tuple(_score(prediction, parser) for prediction in predictions)


# One question is asked of every model of a run, and most models answer it alike.
_REMEMBERED = 200_000


@lru_cache(_REMEMBERED)
def _read(parser: str, text: str, options: tuple[Option, ...]) -> Parsed:
    return parse(text, options, parser=parser)


@lru_cache(_REMEMBERED)
def _mentioned(text: str, options: tuple[Option, ...]) -> str:
    return "".join(sorted(mentioned(text, options)))


@lru_cache(_REMEMBERED)
def _named(text: str, options: tuple[Option, ...]) -> Parsed:
    """Read the answer to a bare question: the one option whose text it names."""
    letter = named_in_words(text, options)
    return Parsed("answered", letter) if letter else UNPARSABLE


def _parse(prediction: Prediction, parser: str) -> Parsed:
    if prediction.asked_as == "words":
        return _named(prediction.text, prediction.options)
    if parser == LIKELIHOOD:
        return read_likelihood(prediction)
    return _read(parser, prediction.text, prediction.options)


def _score(prediction: Prediction, parser: str) -> Score:
    options, true = prediction.options, true_places(prediction)
    parsed = _parse(prediction, parser)
    verdict: Verdict = "cut_off" if prediction.cut_off else "unparsable"
    if parsed.outcome == "refused":
        verdict = "refused"
    elif parsed.outcome == "answered":
        right = any(options[place].letter == parsed.letter for place in true)
        verdict = "correct" if right else "wrong"
    log_probs = answer_log_probs(prediction.option_log_probs, prediction.end_log_probs)
    return Score(
        **key_of(prediction),
        answer=prediction.answer,
        verdict=verdict,
        choice=parsed.letter,
        likeliest=read_likelihood(prediction).letter,
        true_probability=_probability_of(log_probs, true),
        mentioned=_mentioned(prediction.text, options),
        chance=len(true) / len(options),
    )


def _probability_of(log_probs: Sequence[float], places: Sequence[int]) -> float:
    """Return the share of `places` among all options; equal shares if all are impossible."""
    best = max(log_probs)
    weights = [math.exp(value - best) for value in log_probs]
    total = math.fsum(weights)
    if not math.isfinite(total):
        return len(places) / len(log_probs)
    return math.fsum(weights[place] for place in places) / total


def _check(prediction: Prediction) -> list[Problem]:
    """Return why a prediction cannot be scored; empty if it can."""
    where = f"prediction '{prediction.example_id}'"
    letters = [option.letter for option in prediction.options]
    problems = []
    if len(letters) < 2 or len(set(letters)) != len(letters) or not _CAPITALS.issuperset(letters):
        allowed = "two or more options with different letters of A-Z"
        problems.append(Problem("unusable options", where, repr(letters), allowed))
    if prediction.answer not in letters:
        allowed = "one of " + ", ".join(letters)
        problems.append(Problem("answer is no option", where, repr(prediction.answer), allowed))
    return problems + _check_numbers(prediction, where)


def _check_numbers(prediction: Prediction, where: str) -> list[Problem]:
    """Return what is wrong with the numbers that go with the options, one for each."""
    count, log_probs = len(prediction.options), prediction.option_log_probs
    ends, tokens = prediction.end_log_probs, prediction.option_tokens
    bare = prediction.asked_as == "words"
    if len(log_probs) != count:
        got = f"{len(log_probs)} log-probabilities for {count} options"
        return [Problem("options without a log-probability", where, got)]
    if (bare or ends or tokens) and not len(ends) == len(tokens) == count:
        got = f"{len(ends)} ends and {len(tokens)} numbers of tokens for {count} options"
        return [Problem("options in words without their numbers", where, got)]
    if tokens and min(tokens) < 1:
        return [Problem("an option's text has no tokens", where, ", ".join(map(str, tokens)))]
    fix = "the model's logits are not finite: look at the weights of this stage"
    return [
        Problem("unusable log-probabilities", where, ", ".join(map(str, values)), fix=fix)
        for values in (log_probs, ends)
        if any(math.isnan(value) or value == math.inf for value in values)
        or (values and all(value == -math.inf for value in values))
    ]


# --- all answers to a question


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
    return Averaged(credit_of(means, first.true_places), _probability_of(means, first.true_places))


def credit_of(values: Sequence[float], places: Sequence[int]) -> float:
    """Return 1 if the largest value stands in `places`, their share of a tie, else 0."""
    if any(math.isnan(value) for value in values):
        return 0.0
    best = max(values)
    ties = [number for number, value in enumerate(values) if value >= best - TIE]
    return len({*ties} & {*places}) / len(ties)


Answer = tuple[Prediction, Score]


def by_question(
    predictions: Sequence[Prediction], scores: Sequence[Score]
) -> tuple[QuestionScore, ...]:
    """Bring all answers to a question together, in order of first appearance.

    `scores` are those of the `predictions`, in the same order. Raises DataError if an example
    stands there twice.
    """
    groups: dict[str, list[Answer]] = defaultdict(list)
    for answer in zip(predictions, scores, strict=True):
        groups[answer[0].question_id].append(answer)
    twice = [
        name for name, count in Counter(one.example_id for one in predictions).items() if count > 1
    ]
    if twice:
        fix = "pass the answers of one stage, each example once"
        raise DataError([Problem("example scored twice", f"'{name}'", fix=fix) for name in twice])
    return tuple(map(_question, groups.values()))


def _question(answers: Sequence[Answer]) -> QuestionScore:
    shown = [pair for pair in answers if pair[0].asked_as == "options"]
    base = next((pair for pair in shown if pair[0].rotation == 0), None)
    bare = next((pair for pair in answers if pair[0].asked_as == "words"), None)
    if bare is None and base is not None and base[0].option_tokens:
        bare = base  # the scored prompt itself is answered in words
    first, of_first = base or bare or answers[0]
    complete = _is_complete([one for one, _ in shown])
    average = average_over([_order(one) for one, _ in shown]) if complete else None
    mentions = [_mentions(*pair) for pair in shown]
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
        circular=float(all(s.verdict == "correct" for _, s in shown)) if complete else None,
        flipped=_flipped(shown) if complete else None,
        mentions=fmean(true for true, _ in mentions) if shown else None,
        mentions_others=fmean(others for _, others in mentions) if shown else None,
        **_in_words(bare),
    )


def _in_words(bare: Answer | None) -> dict[str, Any]:
    if bare is None:
        names = ("words", "words_per_token", "words_probability", "words_named", "words_lettered")
        return dict.fromkeys((*names, "words_log_likelihood", "words_tokens"))
    one, score = bare
    true, sums = true_places(one), one.option_log_probs
    means = [value / count for value, count in zip(sums, one.option_tokens, strict=True)]
    likeliest = max(true, key=lambda place: means[place])
    return {
        "words": credit_of(sums, true),
        "words_per_token": credit_of(means, true),
        "words_probability": _probability_of(sums, true),
        "words_named": float(score.verdict == "correct"),
        "words_lettered": float(is_letter(one.text, one.options)),
        "words_log_likelihood": means[likeliest],
        "words_tokens": one.option_tokens[likeliest],
    }


def _letter(base: Prediction) -> float:
    log_probs = answer_log_probs(base.option_log_probs, base.end_log_probs)
    return credit_of(log_probs, true_places(base))


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


def _flipped(shown: Sequence[Answer]) -> float | None:
    chosen = [
        option.text
        for one, score in shown
        for option in one.options
        if option.letter == score.choice
    ]
    return float(len(set(chosen)) > 1) if len(chosen) > 1 else None


def _mentions(one: Prediction, score: Score) -> tuple[bool, float]:
    """Tell whether the text names the true option, and return the share of others it names."""
    true = {one.options[place].letter for place in true_places(one)}
    named = {*score.mentioned}
    return bool(true & named), len(named - true) / max(len(one.options) - len(true), 1)


def _log_sum(values: Sequence[float]) -> float:
    best = max(values)
    if not math.isfinite(best):
        return best
    return best + math.log(math.fsum(math.exp(value - best) for value in values))
