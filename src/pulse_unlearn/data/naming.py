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


def mentions(text: str, name: str) -> bool:
    """Return whether a text says the whole name, whatever its case and accents."""
    words = _tokens(name)
    return bool(words) and f" {' '.join(words)} " in f" {' '.join(_tokens(text))} "


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
