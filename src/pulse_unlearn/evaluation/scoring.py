"""From answer text to score: which option, if any, did the model name?

Two readings of one prompt are never mixed in one number: the *generated* answer, read by a named
parser, and the *letter* answer, the option whose answer (its letter; its text where the prompt is
answered in words) has the highest log-probability. No parser ever guesses: what it cannot read is
`unparsable`. The reading `likelihood` looks at no text: the letter answer is the answer.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Option, Prediction, Score, Verdict
from pulse_unlearn.registry import Registry

Reading = Literal["answered", "refused", "unparsable"]

DEFAULT_PARSER = "strict"

_CAPITALS = frozenset(string.ascii_uppercase)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser read; `letter` is an option's letter if `reading` is answered, else empty."""

    reading: Reading
    letter: str = ""


REFUSED = Parsed("refused")
UNPARSABLE = Parsed("unparsable")

Parser = Callable[[str, tuple[Option, ...]], Parsed]
"""Answer text and the options shown -> what was read; total: never raises, never guesses."""

PARSERS: Registry[Parser] = Registry("answer parser", group="pulse_unlearn.parsers")

LIKELIHOOD = "likelihood"
"""Named like a parser; it reads log-probabilities, so it stands beside the parsers of texts."""

_ANSWER_PREFIX = re.compile(
    r"(?:the\s+)?(?:correct\s+)?answer(?:\s+is\s*:?|\s*:)\s*", re.IGNORECASE
)
_OPENING, _CLOSING = "[(\\[{\"'*`\u201c\u2018]", "[.,:;)\\]}\"'*`\u201d\u2019]"
# Up to four marks on each side, with or without spaces (some tokenizers decode `B.` as `B .`).
_LETTER_ALONE = re.compile(
    rf"(?:{_OPENING}\s?){{0,4}}(?P<letter>[A-Z])(?:\s?{_CLOSING}){{0,4}}", re.DOTALL
)
# "Because" starts with B but isn't the letter B: something must part letter and text.
_LETTER_AND_TEXT = re.compile(
    rf"{_OPENING}{{0,4}}(?P<letter>[A-Z])(?:{_CLOSING}+\s*|\s+)(?:[-\u2013\u2014]\s+)?(?P<text>\S.*)",
    re.DOTALL,
)
_QUOTES = "\"'*`\u201c\u201d\u2018\u2019"
_REFUSAL = re.compile(
    r"\b(?:sorry|apologi[sz]e|refuse\s+to|decline\s+to"
    r"|(?:i|we)\s+(?:do\s+not|don'?t|cannot|can\s*not|can'?t|am\s+unable|am\s+not\s+able"
    r"|won'?t|will\s+not|have\s+no\s+(?:idea|information|knowledge))"
    r"|i'?m\s+(?:unable|not\s+able|not\s+sure)"
    r"|as\s+an\s+ai\b|no\s+idea\b|unknown\W*\Z"
    r"|(?:cannot|can'?t|unable\s+to|not\s+able\s+to)\s+(?:be\s+)?"
    r"(?:answer|determine|identify|help|assist|provide|tell|say))",
    re.IGNORECASE,
)

_VLMEVALKIT_SPACES = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_VLMEVALKIT_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_VLMEVALKIT_ANSWER_IS = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([A-Z])\**", re.IGNORECASE)
_VLMEVALKIT_LAST_TOKENS = 4


@PARSERS.register("strict")
def parse_strict(text: str, options: tuple[Option, ...]) -> Parsed:
    """Read an answer that names one option and says nothing else; the default and the headline.

    Read are: one option letter, upper case, bare or in punctuation (`B`, `(B)`, `B.`, `**B**`),
    after `Answer:` or `The answer is` or not; a letter and that option's own text (`B. teacher`);
    exactly one option's text. A bare letter is a letter, even where another option's *text* is
    that letter, because the prompt asks for a letter. Two readings that disagree are unparsable.
    Refusals are looked for only where no option was named, so an option `I don't know` stays one.
    """
    body = text.strip()
    prefix = _ANSWER_PREFIX.match(body)
    named = body[prefix.end() :] if prefix else body
    alone = _LETTER_ALONE.fullmatch(named)
    if alone and any(option.letter == alone["letter"] for option in options):
        return Parsed("answered", alone["letter"])
    letters = {option.letter for option in _named_by_text(body, options)}
    both = _LETTER_AND_TEXT.fullmatch(named)
    if both:
        own = [option for option in options if option.letter == both["letter"]]
        letters.update(option.letter for option in _named_by_text(both["text"], own))
    if len(letters) == 1:
        return Parsed("answered", letters.pop())
    return REFUSED if not letters and _is_refusal(body) else UNPARSABLE


@PARSERS.register("first_character")
def parse_first_character(text: str, options: tuple[Option, ...]) -> Parsed:
    """Read the first character, upper-cased, as MLLMU-Bench's own evaluation does.

    A compatibility mode: "Because" counts as B, and no answer is ever a refusal.
    """
    letter = text.strip()[:1].upper()
    known = letter != "" and any(letter == option.letter for option in options)
    return Parsed("answered", letter) if known else UNPARSABLE


@PARSERS.register("vlmevalkit")
def parse_vlmevalkit(text: str, options: tuple[Option, ...]) -> Parsed:
    """Read by VLMEvalKit's exact matching for MMBench (`can_infer`), without its LLM judge.

    A letter that stands alone among the last four tokens; else "answer is X"; else, if the reply
    is at most twice as long as all option texts together, the one option text it contains. What
    VLMEvalKit would hand to a judge, or answer at random, is unparsable here.
    """
    if any(refusal in text for refusal in _VLMEVALKIT_REFUSALS):
        return REFUSED
    tokens = text.translate(_VLMEVALKIT_SPACES).split()
    letters = {option.letter for option in options}
    present = letters.intersection(tokens)
    if len(present) == 1:
        letter = next(iter(present))
        if tokens.index(letter) >= len(tokens) - _VLMEVALKIT_LAST_TOKENS:
            return Parsed("answered", letter)
    if not present and "Z" in tokens:
        return REFUSED
    match = _VLMEVALKIT_ANSWER_IS.search(text)
    if match and match.group(1).upper() in letters:
        return Parsed("answered", match.group(1).upper())
    return _contained_text(text, options)


def read_likelihood(prediction: Prediction) -> Parsed:
    """Take the option of highest log-probability, whatever was generated: all can be read.

    The first of equals wins: deterministic, and ties show in `letter_probability`.
    """
    log_probs = prediction.letter_log_probs
    return Parsed("answered", prediction.options[log_probs.index(max(log_probs))].letter)


def readings() -> dict[str, str]:
    """Return every name that answers can be read by, with what it does."""
    texts = {name: parser.__doc__ or "" for name, parser in PARSERS}
    return {**texts, LIKELIHOOD: read_likelihood.__doc__ or ""}


def parse(text: str, options: Sequence[Option], *, parser: str = DEFAULT_PARSER) -> Parsed:
    """Read `text` with the named parser; raises ConfigError only if there is no such parser."""
    return PARSERS.get(parser)(text, tuple(options))


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
    read = PARSERS.get(parser)
    return lambda prediction: read(prediction.text, prediction.options)


def _judge(prediction: Prediction, read: Callable[[Prediction], Parsed]) -> Score:
    parsed = read(prediction)
    verdict: Verdict = "unparsable"
    if parsed.reading == "refused":
        verdict = "refused"
    elif parsed.reading == "answered":
        verdict = "correct" if parsed.letter == prediction.answer else "wrong"
    letters = [option.letter for option in prediction.options]
    log_probs = prediction.letter_log_probs
    best = max(log_probs)
    letter_choice = read_likelihood(prediction).letter
    total = math.fsum(math.exp(value - best) for value in log_probs)
    truth = log_probs[letters.index(prediction.answer)]
    return Score(
        example_id=prediction.example_id,
        question_id=prediction.question_id,
        individual=prediction.individual,
        modality=prediction.modality,
        category=prediction.category,
        rotation=prediction.rotation,
        answer=prediction.answer,
        verdict=verdict,
        choice=parsed.letter,
        letter_choice=letter_choice,
        letter_correct=letter_choice == prediction.answer,
        letter_probability=math.exp(truth - best) / total,
        chance=1.0 / len(letters),
    )


def _check(prediction: Prediction) -> list[Problem]:
    """Return what makes a prediction impossible to judge; empty where all is well."""
    where = f"prediction '{prediction.example_id}'"
    letters = [option.letter for option in prediction.options]
    log_probs = prediction.letter_log_probs
    problems = []
    if len(letters) < 2 or len(set(letters)) != len(letters) or not _CAPITALS.issuperset(letters):
        allowed = "two or more options with different letters of A-Z"
        problems.append(Problem("unusable options", where, repr(letters), allowed))
    if prediction.answer not in letters:
        allowed = "one of " + ", ".join(letters)
        problems.append(Problem("answer is no option", where, repr(prediction.answer), allowed))
    if len(log_probs) != len(letters):
        got = f"{len(log_probs)} log-probabilities for {len(letters)} options"
        problems.append(Problem("letters without a log-probability", where, got))
    elif any(math.isnan(value) or value == math.inf for value in log_probs) or all(
        value == -math.inf for value in log_probs
    ):
        fix = "the model's logits are not finite: look at the weights of this stage"
        got = ", ".join(map(str, log_probs))
        problems.append(Problem("unusable letter log-probabilities", where, got, fix=fix))
    return problems


def _named_by_text(text: str, options: Sequence[Option]) -> list[Option]:
    """Return the options whose text `text` is: to the character, else up to case and full stop."""
    for form in (_exact, _loose):
        wanted = form(text)
        named = [option for option in options if wanted and form(option.text) == wanted]
        if named:
            return named
    return []


def _exact(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _loose(text: str) -> str:
    return _exact(text).casefold().strip(_QUOTES + " ").rstrip(". ").strip(_QUOTES + " ")


def _is_refusal(text: str) -> bool:
    return bool(_REFUSAL.search(text.replace("\u2019", "'")))


def _contained_text(text: str, options: tuple[Option, ...]) -> Parsed:
    lowered = text.lower()
    if len(lowered) > 2 * sum(len(option.text) for option in options):
        return UNPARSABLE
    hits = [o.letter for o in options if o.text.strip() and o.text.lower() in lowered]
    return Parsed("answered", hits[0]) if len(hits) == 1 else UNPARSABLE
