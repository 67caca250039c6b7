"""From answer text to letter: which option, if any, does the text name?

No parser ever guesses: what it cannot read is `unparsable`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pulse_unlearn.errors import MethodError, Problem
from pulse_unlearn.evaluation.answer_text import (
    CJK,
    LETTER_ENDS,
    OPENING,
    WORD,
    declared,
    exact,
    loose,
    plain,
    spans_of,
)
from pulse_unlearn.isolation import deadline, isolated
from pulse_unlearn.records import Option
from pulse_unlearn.registry import Registry

Outcome = Literal["answered", "refused", "unparsable"]

DEFAULT_PARSER = "strict"
PARSER_SECONDS = 30
"""A third party's parser may take so long for one answer."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser read; `letter` is an option's letter if `outcome` is answered, else empty."""

    outcome: Outcome
    letter: str = ""


REFUSED = Parsed("refused")
UNPARSABLE = Parsed("unparsable")

Parser = Callable[[str, tuple[Option, ...]], Parsed]
"""Answer text and the options shown -> what was read; total: never raises, never guesses."""

PARSERS: Registry[Parser] = Registry("answer parser", group="pulse_unlearn.parsers")

_OPTION = "(?:[选選][项項] ?:? ?)?"
_CLOSING = "[.,:;)\\]}\"'*`]"
# Up to four marks on each side, with or without spaces (some tokenizers decode `B.` as `B .`).
_LETTER_ALONE = re.compile(
    rf"{_OPTION}(?:{OPENING}\s?){{0,4}}(?P<letter>[A-Z])(?:\s?{_CLOSING}){{0,4}}", re.DOTALL
)
# "Because" starts with B but isn't the letter B: something must part letter and text.
_LETTER_AND_TEXT = re.compile(
    rf"{_OPTION}{OPENING}{{0,4}}(?P<letter>[A-Z])(?:{_CLOSING}+\s*|\s+|(?=[{CJK}]))"
    r"(?:[-\u2013\u2014]\s+)?(?P<text>\S.*)",
    re.DOTALL,
)
_LETTER_STANDING = re.compile(
    rf"(?<!{WORD})(?<![A-Z]\.)(?<![a-z0-9]-)(?P<letter>[A-Z])"
    rf"{LETTER_ENDS}(?!\.[A-Z]\b)"
)
# After an article or a pronoun there is none of these words; after a letter there may be.
_NO_NOUN = "is|was|or|and|because|since|as|for|but|which|that|with|in|on|from|not|would|fits|seems"
_ARTICLE = re.compile(rf" (?!(?:{_NO_NOUN})\b)[a-z]")
_PRONOUN = re.compile(r" (?!(?:is|or)\b)[a-z]")
_DENIES = re.compile(
    r"\b(?:not|no|never|neither|nor|none|cannot|without)\b|n't\b|[不没沒非]", re.IGNORECASE
)
_REFUSAL = re.compile(
    r"\b(?:sorry|apologi[sz]e|refuse\s+to|decline\s+to"
    r"|(?:i|we)\s+(?:do\s+not|don'?t|cannot|can\s*not|can'?t|am\s+unable|am\s+not\s+(?:able|sure)"
    r"|won'?t|will\s+not|have\s+no\s+(?:idea|information|knowledge))"
    r"(?!\s+(?:wait|believe|imagine|resist|help\s+but)\b)"
    r"|i'?m\s+(?:unable|not\s+able|not\s+sure)"
    r"|as\s+an\s+ai\b|no\s+idea\b|unknown\W*\Z"
    r"|(?:cannot|can'?t|unable\s+to|not\s+able\s+to|not\s+possible\s+to|impossible\s+to)"
    r"\s+(?:be\s+)?(?:answer|determine|identify|help|assist|provide|tell|say|know|recogni[sz]e)"
    r"|(?:does|do)(?:\s+not|n'?t)\s+(?:provide|contain|include|show|give|offer)"
    r"\s+(?:(?:any|enough|sufficient)\s+)?information"
    r"|(?:not\s+enough|insufficient)\s+information)",
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
    """Read an answer that names one option, bare or declared; the default and the headline.

    Read are: one option letter, upper case, bare or in punctuation (`B`, `(B)`, `B.`, `**B**`); a
    letter and that option's own text (`B. teacher`); exactly one option's text; and a letter
    declared as the answer (`... the answer is (B)`, `Answer: B`), whatever stands elsewhere.
    A bare letter is a letter, even where another option's *text* is that letter, because the
    prompt asks for a letter. Two readings that disagree, two letters without a declaration, and
    a declaration that is negated or leaves a choice are unparsable. Refusals are looked for only
    where no option is named, so an option `I don't know` stays one.
    """
    said = plain(text)
    alone = _LETTER_ALONE.fullmatch(said)
    if alone and any(option.letter == alone["letter"] for option in options):
        return Parsed("answered", alone["letter"])
    letters = {option.letter for option in _named_by_text(text.strip(), options)}
    both = _LETTER_AND_TEXT.fullmatch(said)
    if both:
        own = [option for option in options if option.letter == both["letter"]]
        letters.update(option.letter for option in _named_by_text(both["text"], own))
    spans = spans_of(said, options)
    letters |= declared(said, spans, {option.letter for option in options})
    if len(letters) == 1 and "" not in letters:
        return Parsed("answered", letters.pop())
    refused = not letters and _REFUSAL.search(said) and len(mentioned(text, options)) != 1
    return REFUSED if refused else UNPARSABLE


@PARSERS.register("declared")
def parse_declared(text: str, options: tuple[Option, ...]) -> Parsed:
    """Read a model that talks: all that `strict` reads, and what else names one option.

    Also read are a letter that is the whole first or last line or the last sentence (`B`, then an
    explanation; `... **(B)**`), a lower-case letter that is the whole answer, and the one option
    whose text is said in a text that denies nothing (`She is a judge.`). Two of these that
    disagree are unparsable, and so is a letter beside which only other options are named.
    """
    read = parse_strict(text, options)
    if read.outcome != "unparsable":
        return read
    said = plain(text)
    spans = spans_of(said, options)
    known = {option.letter for option in options}
    if declared(said, spans, known) or not said:
        return UNPARSABLE
    found = {match["letter"] for part in _ends_of(said) if (match := _LETTER_ALONE.fullmatch(part))}
    if len(said) == 1 and not spans:
        found.add(said.upper())
    if not found and spans and not _DENIES.search(said):
        found = {*mentioned(text, options)}
    named = {span.letter for span in spans}
    one = len(found) == 1 and found <= known and (not named or found <= named)
    return Parsed("answered", found.pop()) if one else UNPARSABLE


def _ends_of(said: str) -> tuple[str, ...]:
    """Return the first line of a plain text, its last line and its last sentence."""
    lines = said.split("\n")
    return lines[0], lines[-1], re.split(r"(?<=[.!?]) ", lines[-1])[-1]


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


def parse(text: str, options: Sequence[Option], *, parser: str = DEFAULT_PARSER) -> Parsed:
    """Read `text` with the named parser; raises ConfigError only if there is no such parser.

    Raises PluginError if a third party's parser raises, hangs, or returns what it must not.
    """
    read, plugin = PARSERS.get(parser), PARSERS.origin(parser)
    if plugin is None:
        return read(text, tuple(options))
    where = f"parser {parser} on {text[:60]!r}"
    fix = "the answers are kept: `pulse score RUN` reads them again"
    with isolated(where, plugin, fix=fix), deadline(PARSER_SECONDS):
        return require_parsed(read(text, tuple(options)), options)


def require_parsed(found: object, options: Sequence[Option]) -> Parsed:
    """Return what a parser read; raises MethodError unless it is what a parser may return."""
    letters = [option.letter for option in options]
    if isinstance(found, Parsed):
        fitting = letters if found.outcome == "answered" else [""]
        if found.outcome in get_args(Outcome) and found.letter in fitting:
            return found
    allowed = f"Parsed('answered', one of {', '.join(letters)}), REFUSED or UNPARSABLE"
    raise MethodError(Problem("returned what no parser may", got=repr(found), allowed=allowed))


def mentioned(text: str, options: Sequence[Option]) -> frozenset[str]:
    """Return the letters of all options that `text` names anywhere, by letter or by text.

    A letter counts where it stands alone, upper case, and is neither part of an option's text
    nor English: `A` at the beginning of a sentence and `I` before a lower-case word are words.
    """
    said = plain(text)
    spans = spans_of(said, options)
    named = {span.letter for span in spans}
    letters = {option.letter for option in options} - named
    for match in _LETTER_STANDING.finditer(said) if letters else ():
        start, letter = match.start(), match["letter"]
        inside = any(s.start <= start < s.end and s.end - s.start > 1 for s in spans)
        if letter in letters and not inside and not _is_english(said, start):
            named.add(letter)
    return frozenset(named)


def _is_english(text: str, place: int) -> bool:
    """Tell whether the `A` or `I` at `place` of a plain text is an article or a pronoun."""
    if text[place] == "I":
        return _PRONOUN.match(text, place + 1) is not None
    begins = text[max(0, place - 8) : place].rstrip(" ([{\"'*`")[-1:] in ("", *".!?:\n")
    return text[place] == "A" and begins and _ARTICLE.match(text, place + 1) is not None


def named_in_words(text: str, options: Sequence[Option]) -> str:
    """Return the letter of the one option whose text `text` contains; empty for none or several.

    For answers to the bare question, where no letters were shown and none are looked at.
    """
    named = {span.letter for span in spans_of(plain(text), options)}
    return named.pop() if len(named) == 1 else ""


def is_letter(text: str, options: Sequence[Option]) -> bool:
    """Tell whether `text` is an option's letter, bare or in punctuation, and no option's text."""
    alone = _LETTER_ALONE.fullmatch(plain(text))
    letters = {option.letter for option in options}
    return alone is not None and alone["letter"] in letters and not _named_by_text(text, options)


def _named_by_text(text: str, options: Sequence[Option]) -> list[Option]:
    """Return the options whose text `text` is: to the character, else up to case and full stop."""
    for form in (exact, loose):
        wanted = form(text)
        named = [option for option in options if wanted and form(option.text) == wanted]
        if named:
            return named
    return []


def _contained_text(text: str, options: tuple[Option, ...]) -> Parsed:
    lowered = text.lower()
    if len(lowered) > 2 * sum(len(option.text) for option in options):
        return UNPARSABLE
    hits = [o.letter for o in options if o.text.strip() and o.text.lower() in lowered]
    return Parsed("answered", hits[0]) if len(hits) == 1 else UNPARSABLE
