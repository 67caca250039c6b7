"""What an answer's words say: texts made comparable, options found in them, letters declared.

Everything here looks at a text and at the options only. It reports what is said, contradictions
included; the parsers decide what that makes of an answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pulse_unlearn.records import Option

CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
"""Scripts written without spaces, as a range inside a regular expression's brackets."""
WORD = rf"[^\W_{CJK}]"
"""A character that keeps a letter or a word beside it from standing alone."""
OPENING = "[(\\[{\"'*`]"
QUOTES = "\"'*`"
LETTER_ENDS = rf"(?!{WORD}|'{WORD}|-[a-z0-9]|[\u0300-\u036f])"

_CJK, _WORD = re.compile(f"[{CJK}]"), re.compile(WORD)
_ASCII = str.maketrans(
    {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    | dict(zip("\u3002\u3001\u3010\u3011\u2018\u2019\u201c\u201d", ".,[]''\"\"", strict=True))
    | dict.fromkeys("\u300c\u300d\u300e\u300f\u300a\u300b", '"')
)


def plain(text: str) -> str:
    """Return `text` with full-width letters and marks as ASCII, and white space run together.

    Lines stay apart: what stands on the next line is no continuation.
    """
    text = unicodedata.normalize("NFC", text.translate(_ASCII))
    return "\n".join(" ".join(words) for line in text.splitlines() if (words := line.split()))


def exact(text: str) -> str:
    """Return `text` to the character, white space and composition apart."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


@lru_cache(100_000)
def loose(text: str) -> str:
    """Return `text` up to case, width, quotes around it and a full stop at its end."""
    folded = plain(text).replace("\n", " ").casefold()
    return folded.strip(QUOTES + " ").rstrip(". ").strip(QUOTES + " ")


# --- option texts in a text


@dataclass(frozen=True, slots=True)
class Span:
    """Where a plain text contains the text of the option `letter`."""

    start: int
    end: int
    letter: str


def spans_of(text: str, options: Sequence[Option]) -> list[Span]:
    """Return where the plain `text` contains options' texts, those inside longer ones left out."""
    folded = text.replace("\n", " ").casefold()
    # Case-folding can lengthen a text: each folded character keeps its place in `text`.
    origin: Sequence[int] = range(len(text))
    if len(folded) != len(text) or not text.isascii():
        origin = [place for place, character in enumerate(text) for _ in character.casefold()]
    found = []
    for option in options:
        wanted = loose(option.text) or exact(option.text).casefold()
        start = folded.find(wanted) if wanted else -1
        while start >= 0:
            end = start + len(wanted)
            if _stands_apart(folded, start, end):
                found.append(Span(origin[start], origin[end - 1] + 1, option.letter))
            start = folded.find(wanted, start + 1)
    return _outermost(found)


def _stands_apart(text: str, start: int, end: int) -> bool:
    """Tell whether text[start:end] is whole words; CJK texts have no boundaries to keep."""
    wanted, before, after = text[start:end], text[max(0, start - 2) : start], text[end : end + 2]
    if not (_WORD.search(wanted) or _CJK.search(wanted)):
        return not (before[-1:].strip() or after[:1].strip())
    if wanted[0].isdigit() and re.search(r"\d[.,]\Z", before):
        return False
    if wanted[-1].isdigit() and re.match(r"[.,]\d", after):
        return False
    joined_before = _WORD.match(before[-1:]) and not _CJK.match(wanted[0])
    joined_after = _WORD.match(after) and not _CJK.match(wanted[-1])
    return not (joined_before or joined_after)


def _outermost(spans: list[Span]) -> list[Span]:
    kept: list[Span] = []
    reach = -1
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        same = bool(kept) and (kept[-1].start, kept[-1].end) == (span.start, span.end)
        if span.end > reach or same:
            kept.append(span)
            reach = span.end
    return kept


# --- letters declared in a text

_LETTER = rf"\s?(?:{OPENING} ?){{0,4}}(?P<letter>(?!I (?!because|since|as)[a-z])[A-Z]){LETTER_ENDS}"
_MARKS = rf"[{QUOTES}]{{0,4}}"
_START = r"(?:\A|(?<=[^\w -])|(?<=[^\w\s] ))"
_BEST = (
    r"(?:(?:most )?(?:final|single|only|correct|right|best|true|likely|accurate|appropriate"
    r"|suitable) )"
)
# "wrong answer", "another answer" and "first option" are not the answer: what may stand before is
# listed, not what may not.
_SUBJECT = (
    rf"(?i:(?:{_START}|\b(?:the|my|our|so|thus|hence|therefore) ){_BEST}{{0,3}}answer"
    rf"(?: option| choice)?|(?:{_START}{_BEST}{{1,3}}|\b(?:the|my|our) {_BEST}{{0,3}})"
    r"(?:option|choice))(?: to (?:the|this|your) question"
    r"| (?:from|among|of) (?:the|these) (?:given |provided |following )?(?:options|choices))?"
)
_IS = (
    rf"{_MARKS}(?i:(?: (?:is|was|(?:would|must|should|has to) be)|'s)\b| ?:){_MARKS}(?: ?:)?"
    r"(?i:,? (?:definitely|clearly|certainly|obviously|probably|likely|most likely|therefore|thus"
    r"|indeed|simply),?)?(?i:\s?(?:the )?(?:option|choice|letter))?"
)
_CN_BEFORE = (
    rf"(?:{_START}|所以|因此|故|那么|[我题題]的|[认認]为|認為|[觉覺]得|可知|[应應][该該]"
    r"|[我应應就会會])"
)
_CN_BEST = r"(?:正[确確]|最佳|最好|最合适|最合適|最[终終]|最[后後])的?"
_CN_IS = (
    r" ?(?:(?:[应應][该該当當]?|就)?(?:是|[为為]|[选選][择擇擇]?) ?:?|:)\s?(?:[选選][项項]\s?)?"
)


@dataclass(frozen=True, slots=True)
class _Language:
    """How a language declares a letter; only texts with a word of `hint` are looked at."""

    hint: re.Pattern[str]
    declares: tuple[re.Pattern[str], ...]
    negates: tuple[re.Pattern[str], ...]


_ENGLISH = _Language(
    re.compile(r"answer|option|choice", re.IGNORECASE),
    declares=(
        re.compile(rf"{_SUBJECT}{_IS}{_LETTER}"),
        re.compile(
            rf"(?:\A|(?<=[.!?:;\n])|(?<=[.!?:;] )|\b(?i:so|thus|hence|therefore),? )"
            rf"(?i:(?:the )?(?:option|choice) )?{_LETTER}(?: ?[)\].{QUOTES}]){{0,4}}"
            rf" (?:is|was) the {_BEST}{{0,3}}(?:answer|option|choice)\b"
        ),
    ),
    negates=(
        re.compile(
            rf"{_SUBJECT}{_MARKS}(?: ?:)?(?: [a-z]+){{0,4}}?(?: ?[a-z]*n't| not| never| neither"
            rf"| cannot)(?: [a-z]+){{0,3}}{_LETTER}"
        ),
        re.compile(
            rf"{_LETTER}{_MARKS} (?:is|was)(?:n't| not| never) (?:the|a|an) {_BEST}{{0,3}}"
            r"(?:answer|option|choice)\b"
        ),
    ),
)
_CHINESE = _Language(
    re.compile("答案|[选選]"),
    declares=(
        re.compile(rf"{_CN_BEFORE}(?:(?:{_CN_BEST})?答案|{_CN_BEST}[选選][项項]){_CN_IS}{_LETTER}"),
        re.compile(rf"{_CN_BEFORE}[会會想要]?[选選][择擇]?(?:[选選][项項])? ?:?{_LETTER}"),
        re.compile(
            rf"{_START}(?:[选選][项項])?{_LETTER}(?: ?[)\]{QUOTES}])* ?是(?:正[确確]的?)?答案"
        ),
    ),
    negates=(
        re.compile(rf"(?:答案|正[确確]的?[选選][项項])[{CJK}]{{0,3}}[不非][{CJK}]{{0,4}}{_LETTER}"),
        re.compile(rf"[不别別勿][应應会會能要]?[该該]?[选選][择擇]?(?:[选選][项項])?{_LETTER}"),
    ),
)
# What may stand before a declaration: a supposition declares nothing, a denial denies it.
_SUPPOSED = re.compile(
    r"\b(?i:if|whether|unless|suppose|supposing|assume|assuming)(?: that)?,? ?\Z"
    r"|(?:如果|若|假如|假[设設]|是否)\Z"
)
_DENIED = re.compile(
    r"(?:\b(?i:doubt|unlikely)|(?i:\bnot|n't|\bcannot|\bnever)(?: [a-z]+)? (?:think|believe|say"
    r"|sure|certain|true|clear|mean|know|agree|claim|convinced))(?: that)? ?\Z"
    r"|[不没沒未](?:[认認]为|認為|[觉覺]得|[确確]定|一定)?\Z"
)
_CLOSED = re.compile(rf"(?: ?[选選]?[项項])?(?:\s?[.:!)\]}}{QUOTES}])*")
_TO_TEXT = re.compile(rf"\s?(?:[,;] ?)?(?:[-\u2013\u2014] ?)?(?:{OPENING} ?){{0,4}}")
_ARTICLE = re.compile(r"(?i:an?|the) ")
_CLAUSE_ENDS = re.compile(rf" ?[.,;:!?)\]{QUOTES}]|\n|\Z")
# Behind a letter that no mark closes; before any other word `A` may be an article.
_GOES_ON = re.compile(
    r"\Z|\n|[,;]| ?[-\u2013\u2014]\s| ?[(\[]|,? ?(?:因[为為]|由[于於])"
    r"| (?:because|since|as|for|given|due|based|from|in|on|with|which|that|not)\b"
)
_OR = re.compile(r"\s?\?|\s?[,;]? ?[(\[]? ?(?:(?i:and/or|or)\b|或|还是|還是)")
_AND = re.compile(
    r"\s?(?:[,;/&+|]|(?i:and)\b|[和与與及跟]|以及) ?(?:(?:(?i:and|also|maybe|possibly|perhaps"
    r"|probably|even|both|option|choice)|an?|the)\b ?|[和与與及]|[选選][项項])*"
    rf"(?:{OPENING} ?){{0,4}}"
)
_NEXT_IN_LIST = re.compile(rf"(?!I [a-z])[A-Z]{LETTER_ENDS}")
_NEXT_ALONE = re.compile(
    rf"\s?(?:{OPENING} ?){{0,4}}[A-Z]{LETTER_ENDS}(?: ?[.,:;!?/)\]}}{QUOTES}]|\n|\Z| [A-Z]\b"
    r"| (?:or|and)\b)"
)


def declared(text: str, spans: Sequence[Span], letters: Collection[str]) -> set[str]:
    """Return the letters that the plain `text` declares to be the answer.

    An empty string among them stands for a declaration that names no one option: it is denied,
    leaves a choice, names what is no option, or another option's text follows.
    """
    languages = [language for language in (_ENGLISH, _CHINESE) if language.hint.search(text)]
    found = {"" for one in languages for way in one.negates if way.search(text)}
    for match in (m for one in languages for way in one.declares for m in way.finditer(text)):
        before = text[max(0, match.start() - 40) : match.start()]
        if not _SUPPOSED.search(before):
            named = match["letter"] in letters and not _DENIED.search(before)
            found.add(match["letter"] if named and _holds(text, match, spans) else "")
    return found


def _holds(text: str, match: re.Match[str], spans: Sequence[Span]) -> bool:
    """Tell whether what stands behind a declaration leaves its letter the one declared."""
    letter, start = match["letter"], match.end()
    closed = _skip(_CLOSED, text, start)
    behind = _skip(_TO_TEXT, text, closed)
    end, named = _text_between(start, behind, spans)
    if not named:
        article = _skip(_ARTICLE, text, behind)
        end, named = _text_between(article, article, spans)
        if letter not in named and not _CLAUSE_ENDS.match(text, end):
            named = set()  # "The answer is B. A pilot would wear a cap."
    if named:
        if letter not in named:
            return False
        closed = _skip(_CLOSED, text, end)
    elif match.end("letter") == closed and not _GOES_ON.match(text, closed):
        return False
    return not _leaves_a_choice(text, closed, letter, spans)


def _leaves_a_choice(text: str, start: int, letter: str, spans: Sequence[Span]) -> bool:
    """Tell whether another option, or any choice, follows at `start`."""
    if _OR.match(text, start) or _NEXT_ALONE.match(text, start):
        return True
    joined = _skip(_AND, text, start)
    if joined > start and _NEXT_IN_LIST.match(text, joined):
        return True
    return bool(_text_between(start, max(joined, start + 1), spans)[1] - {letter})


def _skip(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Return where `pattern` ends if it stands at `start`, else `start`."""
    match = pattern.match(text, start)
    return match.end() if match else start


def _text_between(first: int, last: int, spans: Sequence[Span]) -> tuple[int, set[str]]:
    """Return the end of the longest option text begun there, and the letters that have it."""
    begun = [span for span in spans if first <= span.start <= last]
    end = max((span.end for span in begun), default=first)
    return end, {span.letter for span in begun if span.end == end}
