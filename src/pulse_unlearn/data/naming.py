"""Names of people: found in biographies or questions, and compared regardless of spelling."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_PARTICLES = frozenset(
    {"al", "bin", "da", "de", "del", "den", "der", "di", "la", "le", "van", "von"}
)
_ARTICLES = frozenset({"a", "an", "the"})
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


def same_answer(text: str) -> str:
    """Return what two answers have in common that say the same: `The Judge.` = `judge`."""
    words = _tokens(text)
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words) or text.strip()


def is_variant(one: str, other: str) -> bool:
    """Return whether one name is the other with words left out or initials: `L. Hayes`.

    Every word of the shorter name stands in the longer one, at least one of them in full.
    """
    short, long = sorted((_tokens(one), _tokens(other)), key=len)
    if len(short) < 2 or sorted(short) == sorted(long):
        return False
    in_full = 0
    for word in sorted(short, key=len, reverse=True):
        same = word if word in long else next((w for w in long if _initial(word, w)), None)
        if same is None:
            return False
        in_full += same == word and len(word) > 1
        long = [*long]
        long.remove(same)
    return in_full > 0


def words_of(name: str) -> set[str]:
    """Return a name's words in full, without case and accents."""
    return {word for word in _tokens(name) if len(word) > 1}


def _initial(word: str, other: str) -> bool:
    return min(len(word), len(other)) == 1 and word[0] == other[0]


def mentions(text: str, name: str) -> bool:
    """Return whether a text says the whole name, whatever its case and accents."""
    wanted = plain(name)
    return wanted != plain("") and wanted in plain(text)


def plain(text: str) -> str:
    """Return a text's words between spaces, without case, accents and punctuation."""
    return f" {' '.join(_tokens(text))} "


def _tokens(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", text.casefold())
    kept = (c for c in plain if not unicodedata.combining(c))
    return "".join(c if c.isalnum() else " " for c in kept).split()


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
