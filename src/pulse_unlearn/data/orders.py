"""In which orders a question's options are asked, where every order is.

MMBench's circular copies are these orders where a file has them. Elsewhere every option moves up
by one place at a time, but for those that are about the others: `None of these` stays last, as in
MMBench's own copies, and where options name letters (`both A and B`) no order but the file's keeps
the question's meaning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pulse_unlearn.records import Option, Question

_ABOUT_OPTIONS = re.compile(
    r"\b(?:all|none|both|neither|either|any|two) of (?:the )?"
    r"(?:above|these|them|others?|options?)\b"
    r"|以上(?:都|皆|全)|都不(?:是|对)",
    re.IGNORECASE,
)
_TWO_LETTERS = re.compile(r"(?<!\w)\(?([A-Z])\)? (?:and|or|nor|&) \(?([A-Z])\)?(?!\w)")


def orders_of(question: Question) -> tuple[tuple[int, ...], ...]:
    """Return every order that is asked: places of the options under A, B, ...; the file's first."""
    count = len(question.options)
    if question.orders:
        return question.orders
    if names_letters(question.options):
        return (tuple(range(count)),)
    fixed = staying(question.options)
    moving = [place for place in range(count) if place not in fixed]
    return tuple(_turned(count, moving, turn) for turn in range(max(len(moving), 1)))


def is_about_options(options: Sequence[Option]) -> bool:
    """Tell whether any option is about the other ones."""
    return bool(staying(options))


def staying(options: Sequence[Option]) -> frozenset[int]:
    """Return the places of the options that are about the other ones."""
    letters = {option.letter for option in options}
    return frozenset(
        place
        for place, option in enumerate(options)
        if _ABOUT_OPTIONS.search(option.text) or _names(option.text, letters)
    )


def names_letters(options: Sequence[Option]) -> bool:
    """Tell whether an option names other options by their letters."""
    letters = {option.letter for option in options}
    return any(_names(option.text, letters) for option in options)


def _names(text: str, letters: set[str]) -> bool:
    return any(letters >= set(found.groups()) for found in _TWO_LETTERS.finditer(text))


def _turned(count: int, moving: Sequence[int], turn: int) -> tuple[int, ...]:
    order = list(range(count))
    for number, place in enumerate(moving):
        order[place] = moving[(number + turn) % len(moving)]
    return tuple(order)
