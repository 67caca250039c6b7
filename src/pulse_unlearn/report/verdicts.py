"""The words that the results give to each operation, brought together over its seeds.

No word is decided here: this room counts what `results.json` says, and explains each word by its
rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pulse_unlearn.report.estimates import HowOften, Place
from pulse_unlearn.report.extras import Verdict
from pulse_unlearn.report.words import printable, with_reading_titles

_RULES: dict[str, tuple[str, str]] = {
    "output broken": (
        "broken",
        "Half of the answers or more cannot be read. That says nothing about what is known.",
    ),
    "one letter": (
        "letter",
        "The model says one letter far more often than that letter is right, whatever is asked. "
        "That is right about as often as chance, and is not forgetting.",
    ),
    "avoids": (
        "avoids",
        "Right less often than by chance, averaged over the orders of the options: whoever avoids "
        "the answer knows it.",
    ),
    "suppressed": (
        "suppressed",
        "The answers as given are no better than their letters alone would be, but another reading "
        "stands above chance.",
    ),
    "remembered": ("remembered", "At least one reading stands above chance."),
    "like never known": (
        "alike",
        "No reading differs by more than 10 points from the retain model, which never knew these "
        "people.",
    ),
    "not recovered": (
        "unrecovered",
        "None of this run’s readings stands above chance. Other readings, or training again, may "
        "still find it.",
    ),
    "unknown": ("unknown", "Too few people for a verdict."),
}
"""Word -> its look, and its rule. The first rule that fits decided."""
_ORDER = tuple(_RULES)
_MOST_WHYS = 3


@dataclass(frozen=True, slots=True)
class Word:
    """One word, and in how many seeds it was given if not in all."""

    text: str
    kind: str
    """Its look: a class of the style sheet."""
    seeds: str
    """``2 of 3``; empty where all seeds have this word."""
    rule: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What all seeds of one place say about D_unlearn."""

    words: tuple[Word, ...]
    whys: tuple[str, ...]
    remembered: HowOften

    @property
    def text(self) -> str:
        """The words on one line: ``suppressed (2 of 3), one letter (1 of 3)``."""
        return ", ".join(
            f"{word.text} ({word.seeds})" if word.seeds else word.text for word in self.words
        )

    @property
    def only(self) -> str:
        """The word if all seeds have the same; empty otherwise."""
        return self.words[0].text if len(self.words) == 1 else ""


UNJUDGED = Judged((Word("no verdict", "unknown", "", ""),), (), HowOften(0, 0))


class Verdicts:
    """All verdicts of a run, by place."""

    def __init__(self, verdicts: Iterable[Verdict]) -> None:
        self._by_place: dict[Place, dict[int, Verdict]] = defaultdict(dict)
        for one in verdicts:
            place = Place(one.scenario, one.method, one.scope, one.request)
            self._by_place[place][one.seed] = one

    def at(self, place: Place) -> Judged:
        """Return what the seeds of this place say; without a verdict it says so."""
        by_seed = dict(sorted(self._by_place.get(place, {}).items()))
        if not by_seed:
            return UNJUDGED
        found = by_seed.values()
        return Judged(
            words=_words([one.word for one in found]),
            whys=_whys(by_seed),
            remembered=HowOften(sum(one.remembered for one in found), len(found)),
        )


def _words(said: list[str]) -> tuple[Word, ...]:
    counts = {word: said.count(word) for word in said}

    def key(word: str) -> tuple[int, int, str]:
        return (-counts[word], _ORDER.index(word) if word in _RULES else len(_ORDER), word)

    many = len(counts) > 1
    words = []
    for word in sorted(counts, key=key):
        kind, rule = _RULES.get(word, ("unknown", "Not a word that this report knows."))
        told = f"{counts[word]} of {len(said)}" if many else ""
        words.append(Word(printable(word, 40), kind, told, rule))
    return tuple(words)


def _whys(by_seed: dict[int, Verdict]) -> tuple[str, ...]:
    lines = []
    for seed, one in by_seed.items():
        text = printable(with_reading_titles(one.why), 300)
        if text:
            lines.append(f"seed {seed}: {text}" if len(by_seed) > 1 else text)
    more = [f"and {len(lines) - _MOST_WHYS} more seeds"] if len(lines) > _MOST_WHYS else []
    return (*lines[:_MOST_WHYS], *more)
