"""Names and ids of people: found in biographies or questions, compared regardless of spelling."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

_PARTICLES = frozenset(
    {"al", "bin", "da", "de", "del", "den", "der", "di", "la", "le", "van", "von"}
)
_SUFFIXES: Mapping[str, str] = {
    **dict.fromkeys(("jr", "jnr", "junior"), "jr"),
    **dict.fromkeys(("sr", "snr", "senior"), "sr"),
    **{word: word for word in ("ii", "iii", "iv")},
}
# Small letters of other alphabets, and the Latin one that they or their capitals look like (Unicode
# Technical Standard 39); letters with a stroke, which Unicode does not take apart.
_LATIN = str.maketrans(
    "\u0430\u0432\u0441\u0501\u0435\u04bb\u043d\u0456\u04cf\u0458\u043a\u043c\u043e"
    "\u0440\u051b\u0433\u0455\u0442\u0475\u051d\u0445\u0443\u04af"
    "\u03b1\u03b2\u03c2\u03b5\u03b7\u03b9\u03f3\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5"
    "\u03c7\u03b6\u0131\u00f8\u0142\u0111",
    "abcdehhiijkmopqrstvwxyyabcehijkmnoptyxziold",
)
# Signs without width that are no format characters, by Unicode: joiner, fillers, selectors.
_BLANK = frozenset("\u034f\u115f\u1160\u3164\uffa0") | {chr(n) for n in range(0xFE00, 0xFE10)}
# The same as for any other text, in a tenth of the time.
_ASCII = {n: " " for n in range(128) if not chr(n).isalnum()}
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER = re.compile(r"0*(\d+)(?:\.0)?")
_POSSESSIVE = ("'s", "\u2019s")


def find_name(biography: Any, questions: Sequence[str]) -> str:
    """Return a person's name: `Name` of a JSON biography, else what all questions call them.

    `questions` are text-only ones, which name the person. Empty if neither tells.
    """
    told = _name_in_biography(biography)
    if told:
        return told
    runs = Counter(run for question in questions for run in set(_capitalised_runs(question)))
    best = sorted(runs, key=lambda run: (-runs[run], -len(run), run))
    return best[0] if best and runs[best[0]] * 2 > len(questions) else ""


def normalised(name: str) -> str:
    """Return a name without case, accents, punctuation and order: `Hayes, Lára` = `lara hayes`."""
    return " ".join(sorted(_tokens(name)))


def same_id(identity: str) -> str:
    """Return what two spellings of one id have in common: `093`, `93` and `93.0` are one number."""
    number = _NUMBER.fullmatch(identity)
    return number[1] if number else identity


def same_answer(text: str) -> str:
    """Return what two answers have in common that say the same: `The Judge.` = `judge`."""
    words = _words(text)
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words) or text.strip()


def is_variant(one: str, other: str) -> bool:
    """Return whether one name is the other with words left out, initials or no suffix: `L. Hayes`.

    Every word of the shorter name stands in the longer one, at least one of them in full. An
    initial stands for a word in its own place only: first, middle or last. `Hayes, Lara` and
    `Hayes L.` are read with the surname last. Two different suffixes make two people.
    """
    names = _Name.of(one), _Name.of(other)
    if len({name.suffix for name in names if name.suffix}) > 1:
        return False
    short, long = sorted((name.words for name in names), key=len)
    if len(short) < 2:
        return False
    if sorted(short) == sorted(long):
        return names[0].suffix != names[1].suffix
    return any(_shortened(a, b) for a in _readings(short) for b in _readings(long))


def variant_pairs(names: Sequence[str]) -> set[tuple[int, int]]:
    """Return the places of all pairs that may be variants of a name; few of them are not.

    Two such names share a word in full, and a second one: in full too, or as an initial in one.
    """
    both: dict[tuple[str, str], list[int]] = defaultdict(list)
    initials: dict[tuple[str, str], list[int]] = defaultdict(list)
    begun: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        words = _Name.of(name).words
        seconds = {(a, b) for a, b in permutations(words, 2) if len(a) > 1}
        for pair in {(a, b) for a, b in seconds if a <= b and len(b) > 1}:
            both[pair].append(place)
        for key in {(a, b) for a, b in seconds if len(b) == 1}:
            initials[key].append(place)
        for key in {(a, b[0]) for a, b in seconds}:
            begun[key].append(place)
    found = {pair for same in both.values() for pair in combinations(same, 2)}
    for key, short in initials.items():
        found |= {(min(a, b), max(a, b)) for a in short for b in begun[key] if a != b}
    return found


def words_of(name: str) -> set[str]:
    """Return a name's words in full, without case and accents."""
    return {word for word in _tokens(name) if len(word) > 1}


def mentions(text: str, name: str) -> bool:
    """Return whether a text says the whole name, whatever its case and accents."""
    wanted = plain(name)
    return wanted != plain("") and wanted in plain(text)


def plain(text: str) -> str:
    """Return a text's words between spaces, without case, accents and punctuation."""
    return f" {' '.join(_tokens(text))} "


@dataclass(frozen=True, slots=True)
class _Name:
    """A name's words, the surname last where a comma says which it is, and its suffix."""

    words: tuple[str, ...]
    suffix: str

    @classmethod
    def of(cls, name: str) -> _Name:
        parts = [part for text in name.split(",") if (part := _tokens(text))]
        suffixes = [word for part in parts for word in part[-1:] if word in _SUFFIXES]
        bare = [part[:-1] if part[-1] in _SUFFIXES else part for part in parts]
        bare = [part for part in bare if part]
        words = tuple(word for part in (*bare[1:], *bare[:1]) for word in part)
        return cls(words, _SUFFIXES.get(suffixes[0], "") if suffixes else "")


def _readings(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return a name as it stands, and with the surname last if initials follow it: `Hayes L`."""
    initials = 0
    while initials < len(words) and len(words[-1 - initials]) == 1:
        initials += 1
    if not 0 < initials < len(words):
        return [words]
    return [words, (*words[-initials:], *words[:-initials])]


def _shortened(short: tuple[str, ...], long: tuple[str, ...]) -> bool:
    """Return whether each word of one name is one of the other, one at least in full."""
    left = dict(enumerate(long))
    in_full = False
    for place, word in sorted(enumerate(short), key=lambda entry: -len(entry[1])):
        full = [n for n, other in left.items() if other == word and len(word) > 1]
        part = _part(place, short)
        same = full or [
            n for n, other in left.items() if _initial(word, other) and _part(n, long) == part
        ]
        if not same:
            return False
        in_full |= bool(full)
        del left[same[0]]
    return in_full


def _part(place: int, words: tuple[str, ...]) -> str:
    return "first" if place == 0 else "last" if place == len(words) - 1 else "middle"


def _initial(word: str, other: str) -> bool:
    return min(len(word), len(other)) == 1 and word[0] == other[0]


def _tokens(text: str) -> list[str]:
    """Return the words of a name or of what may say one, look-alike letters as the Latin ones.

    That is done in every word: so a name in another alphabet still equals itself.
    """
    return [word.translate(_LATIN) for word in _words(text)]


def _words(text: str) -> list[str]:
    """Return a text's words without case, accents and signs that show nothing."""
    if text.isascii():
        return text.lower().translate(_ASCII).split()
    plain = unicodedata.normalize("NFKD", text.casefold())
    shown = (c for c in plain if not (unicodedata.combining(c) or _invisible(c)))
    return "".join(c if _in_word(c) else " " for c in shown).split()


def _invisible(character: str) -> bool:
    """Return whether it is a sign of no width: a zero-width space, a joiner, a direction mark."""
    return unicodedata.category(character) == "Cf" or character in _BLANK


def _in_word(character: str) -> bool:
    # Vowel signs of Indic alphabets are marks within a word.
    return character.isalnum() or unicodedata.category(character).startswith("M")


def _name_in_biography(biography: Any) -> str:
    found = biography
    if isinstance(found, str) and found.lstrip().startswith("{"):
        try:
            found = json.loads(found)
        except ValueError:
            return ""
    if not isinstance(found, Mapping):
        return ""
    names = (found.get(key) for key in ("Name", "name", "Name:"))
    return next((name.strip() for name in names if isinstance(name, str)), "")


def _capitalised_runs(question: str) -> list[str]:
    """Return runs of capitalised words behind the first word of a question."""
    runs: list[list[str]] = [[]]
    # A full stop within a question belongs to initials, as in "J. K. Rowling".
    for raw in question.rstrip(".").split()[1:]:
        word = raw.rstrip("?!,;:")
        owner = word.endswith(_POSSESSIVE)
        word = word[:-2] if owner else word
        if word[:1].isupper() or (runs[-1] and word in _PARTICLES):
            runs[-1].append(word)
        if owner or word != raw or not (word[:1].isupper() or word in _PARTICLES):
            runs.append([])
    return [" ".join(_trimmed(run)) for run in runs if _trimmed(run)]


def _trimmed(run: list[str]) -> list[str]:
    while run and run[-1] in _PARTICLES:
        run = run[:-1]
    return run
