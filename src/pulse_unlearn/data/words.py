"""Which questions can be asked bare, their options unseen, and why others cannot."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import permutations

from pulse_unlearn.data.orders import is_about_options
from pulse_unlearn.records import Question

POINTS_AT_OPTIONS = "its words point at the options"
NAMES_OPTIONS = "an option is about the other options"
EQUAL_TEXTS = "two options are equal up to case"
BEGINS_ANOTHER = "an option is the beginning of another one"
"""Summed over its tokens, the shorter text could never be less likely than the longer one."""

_POINTING = re.compile(
    r"\b(?:following|which (?:one|option|choice|statement)s?|(?:the|these) (?:options?|choices?)"
    r"|(?:shown|listed|given) (?:above|below)|which of (?:these|the|them))\b"
    r"|下列|以下|哪个选项|哪一个选项|哪一项|选项中",
    re.IGNORECASE,
)


def obstacle(question: Question) -> str:
    """Return why a question cannot be asked in words; empty if it can."""
    texts = [" ".join(option.text.casefold().split()) for option in question.options]
    if _POINTING.search(question.question):
        return POINTS_AT_OPTIONS
    if is_about_options(question.options):
        return NAMES_OPTIONS
    if len(set(texts)) < len(texts):
        return EQUAL_TEXTS
    if any(longer.startswith(shorter + " ") for shorter, longer in permutations(texts, 2)):
        return BEGINS_ANOTHER
    return ""


def obstacles(questions: Iterable[Question]) -> Counter[str]:
    """Count the questions that cannot be asked in words, by reason."""
    return Counter(reason for question in questions if (reason := obstacle(question)))
