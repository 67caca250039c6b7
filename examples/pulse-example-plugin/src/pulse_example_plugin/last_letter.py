"""An answer parser for models that reason before they answer: the last letter counts."""

from __future__ import annotations

import re

from pulse_unlearn.evaluation.parsers import UNPARSABLE, Parsed
from pulse_unlearn.records import Option

_LETTER = re.compile(r"\b[A-Z]\b")


def parse_last_letter(text: str, options: tuple[Option, ...]) -> Parsed:
    """Read the last capital that stands alone and is an option's letter; guess nothing."""
    letters = {option.letter for option in options}
    found = [letter for letter in _LETTER.findall(text) if letter in letters]
    return Parsed("answered", found[-1]) if found else UNPARSABLE
