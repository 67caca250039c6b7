"""From stored answer to score: which option, if any, did the model name?

Two things are read off every answer and never mixed in one number: the *generated* text, by a named
parser, and the option whose answer (its letter; its text where the prompt is answered in words) has
the highest log-probability. The parser `likelihood` looks at no text: the likeliest option is the
answer. `readings` brings all answers to one question together.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterable
from functools import lru_cache

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.parsers import (
    DEFAULT_PARSER,
    PARSERS,
    UNPARSABLE,
    Parsed,
    mentioned,
    named_in_words,
    parse,
)
from pulse_unlearn.records import Option, Prediction, Score, Verdict, key_of

_CAPITALS = frozenset(string.ascii_uppercase)

LIKELIHOOD = "likelihood"
"""Named like a parser; it reads log-probabilities, so it stands beside the parsers of texts."""


def read_likelihood(prediction: Prediction) -> Parsed:
    """Take the option of highest log-probability, whatever was generated: all can be read.

    The first of equals wins: deterministic, and ties show in `true_probability`.
    """
    log_probs = answer_log_probs(prediction)
    return Parsed("answered", prediction.options[log_probs.index(max(log_probs))].letter)


def answer_log_probs(prediction: Prediction) -> tuple[float, ...]:
    """Return each option's log-probability as a whole answer: a text's with its end of turn."""
    if not prediction.end_log_probs:
        return prediction.option_log_probs
    pairs = zip(prediction.option_log_probs, prediction.end_log_probs, strict=True)
    return tuple(text + end for text, end in pairs)


def true_places(prediction: Prediction) -> tuple[int, ...]:
    """Return the places of the true option and of those whose text is the same."""
    options = prediction.options
    truth = next(option.text for option in options if option.letter == prediction.answer)
    return tuple(place for place, option in enumerate(options) if option.text == truth)


def true_letters(prediction: Prediction) -> str:
    """Return the letters of the true option and of those whose text is the same."""
    return "".join(prediction.options[place].letter for place in true_places(prediction))


def readings() -> dict[str, str]:
    """Return every name that answers can be read by, with what it does."""
    texts = {name: parser.__doc__ or "" for name, parser in PARSERS}
    return {**texts, LIKELIHOOD: read_likelihood.__doc__ or ""}


def score(prediction: Prediction, *, parser: str = DEFAULT_PARSER) -> Score:
    """Judge one prediction; raises DataError if its options or log-probabilities are unusable."""
    return score_all([prediction], parser=parser)[0]


def score_all(
    predictions: Iterable[Prediction], *, parser: str = DEFAULT_PARSER
) -> tuple[Score, ...]:
    """Judge predictions in order; raises DataError naming every one that cannot be judged."""
    read = _reader(parser)
    predictions = tuple(predictions)
    problems = [problem for prediction in predictions for problem in _check(prediction)]
    if problems:
        raise DataError(problems)
    return tuple(_judge(prediction, read) for prediction in predictions)


def _reader(parser: str) -> Callable[[Prediction], Parsed]:
    if parser == LIKELIHOOD:
        return read_likelihood
    return lambda prediction: _read(parser, prediction.text, prediction.options)


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


def _judge(prediction: Prediction, read: Callable[[Prediction], Parsed]) -> Score:
    bare = prediction.asked_as == "words"
    parsed = _named(prediction.text, prediction.options) if bare else read(prediction)
    true = true_places(prediction)
    verdict: Verdict = "cut_off" if prediction.cut_off else "unparsable"
    if parsed.reading == "refused":
        verdict = "refused"
    elif parsed.reading == "answered":
        right = any(prediction.options[at].letter == parsed.letter for at in true)
        verdict = "correct" if right else "wrong"
    log_probs = answer_log_probs(prediction)
    best = max(log_probs)
    total = math.fsum(math.exp(value - best) for value in log_probs)
    return Score(
        **key_of(prediction),
        answer=prediction.answer,
        verdict=verdict,
        choice=parsed.letter,
        likeliest=read_likelihood(prediction).letter,
        true_probability=math.fsum(math.exp(log_probs[at] - best) for at in true) / total,
        mentioned=_mentioned(prediction.text, prediction.options),
        chance=len(true) / len(prediction.options),
    )


def _check(prediction: Prediction) -> list[Problem]:
    """Return what makes a prediction impossible to judge; empty where all is well."""
    where = f"prediction '{prediction.example_id}'"
    letters = [option.letter for option in prediction.options]
    log_probs = prediction.option_log_probs
    problems = []
    if len(letters) < 2 or len(set(letters)) != len(letters) or not _CAPITALS.issuperset(letters):
        allowed = "two or more options with different letters of A-Z"
        problems.append(Problem("unusable options", where, repr(letters), allowed))
    if prediction.answer not in letters:
        allowed = "one of " + ", ".join(letters)
        problems.append(Problem("answer is no option", where, repr(prediction.answer), allowed))
    if len(log_probs) != len(letters):
        got = f"{len(log_probs)} log-probabilities for {len(letters)} options"
        problems.append(Problem("options without a log-probability", where, got))
    else:
        problems += _check_numbers(prediction, where)
    return problems


def _check_numbers(prediction: Prediction, where: str) -> list[Problem]:
    """Return what is wrong with the numbers beside the options, which are as many as these."""
    count = len(prediction.options)
    ends, tokens = prediction.end_log_probs, prediction.option_tokens
    bare = prediction.asked_as == "words"
    if (bare or ends or tokens) and not len(ends) == len(tokens) == count:
        got = f"{len(ends)} ends and {len(tokens)} numbers of tokens for {count} options"
        return [Problem("options in words without their numbers", where, got)]
    if tokens and min(tokens) < 1:
        return [Problem("an option's text has no tokens", where, ", ".join(map(str, tokens)))]
    fix = "the model's logits are not finite: look at the weights of this stage"
    return [
        Problem("unusable log-probabilities", where, ", ".join(map(str, values)), fix=fix)
        for values in (prediction.option_log_probs, ends)
        if any(math.isnan(value) or value == math.inf for value in values)
        or (values and all(value == -math.inf for value in values))
    ]
