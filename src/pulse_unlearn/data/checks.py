"""What every question must satisfy, whatever file it comes from, and how faults are gathered."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from string import ascii_uppercase

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Question, ShortAnswer

LETTERS = ascii_uppercase
"""Letters an option may carry; the benchmarks use A to D, few questions more."""
MAX_CHARACTERS = 20_000
"""Longest text taken; the longest MMBench hint has a few thousand, a 1 MB field is damage."""
SHOWN = 25
"""Problems of one kind that are told in full; of the others the places are, in short."""
WIDTH = 96
"""Characters of a line of places."""

# Control characters other than tab and line feed, and halves of a surrogate pair: no tokenizer and
# no UTF-8 file takes them. Right-to-left text, emoji and combining characters pass.
_UNSPEAKABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_PLACEHOLDER = "<image>"
# `people.jsonl:12 id p1 image p1.png`, `Full_Set/train.parquet:row 7`
_ROW = re.compile(r"(?P<file>[^\s:]+:(?:row )?)(?P<row>\d+)\b")


def clean(text: object) -> str:
    """Return a cell's text without outer white space, line ends as LF; empty for a null."""
    return "" if text is None else str(text).replace("\r\n", "\n").replace("\r", "\n").strip()


class Problems(list[Problem]):
    """What is wrong with a data set: all of it is gathered before anything is raised."""

    def add(
        self, what: str, where: str = "", got: str = "", allowed: str = "", fix: str = ""
    ) -> None:
        """Add one; the arguments are those of `Problem`."""
        self.append(Problem(what, where, got, allowed, fix))

    def take(self, found: Sequence[Problem]) -> bool:
        """Add what was found; return whether anything was."""
        self.extend(found)
        return bool(found)

    def raise_any(self) -> None:
        """Raise DataError with all of them, if there are any."""
        if self:
            raise DataError(gathered(self))


def check_question(
    question: Question, where: str, *, twins: bool = False, picture_told: bool = False
) -> list[Problem]:
    """Return what makes a multiple-choice question unusable; empty if it can be asked.

    `twins` lets options be equal, as they are in public files. `picture_told`: what is wrong with
    its picture has been told, so that its lack is not.
    """
    problems = Problems(check_text("question", question.question, where))
    for part in ("hint", "category", "l2_category"):
        text = getattr(question, part)
        problems += check_text(part.replace("_", "-"), text, where) if text else []
    for option in question.options:
        problems += check_text(f"option {option.letter}", option.text, where)
    _check_options(question, where, problems, twins=twins)
    if question.modality == "multimodal" and question.picture is None and not picture_told:
        problems.add("the question needs a picture", where, fix="add the picture")
    return problems


def _check_options(question: Question, where: str, problems: Problems, *, twins: bool) -> None:
    """Add what is wrong with the options together: few, alike, the answer not among them."""
    letters = ", ".join(option.letter for option in question.options) or "none"
    if len(question.options) < 2:
        problems.add("fewer than two options", where, letters, "two or more")
    under: dict[str, list[str]] = defaultdict(list)
    for option in question.options:
        under[option.text].append(option.letter)
    for text, same in under.items():
        if len(same) > 1 and (not twins or len(under) < 2):
            got, allowed = f"{' and '.join(same)}: {short(text)}", "options that differ"
            fix = "give each option its own text, or take the question out"
            problems.add("options are the same", where, got, allowed, fix)
    if question.answer not in {option.letter for option in question.options}:
        fix = "give the letter of the true option; numbers are not read as its place"
        got = short(question.answer)
        problems.add("the answer is not among the options", where, got, letters, fix)


def check_short_answer(answer: ShortAnswer, where: str) -> list[Problem]:
    """Return what makes a question answered in words unusable."""
    return [
        *check_text("question", answer.question, where),
        *check_text("answer", answer.answer, where),
    ]


def check_text(part: str, text: str, where: str) -> list[Problem]:
    """Return what makes one text unusable: empty, enormous, or not sayable to a model."""
    if not text:
        return [Problem(f"the {part} is empty", where)]
    if len(text) > MAX_CHARACTERS:
        got, allowed = f"{len(text)} characters", f"at most {MAX_CHARACTERS}"
        return [Problem(f"the {part} is too long", where, got, allowed)]
    found = _UNSPEAKABLE.search(text)
    if found:
        got = f"U+{ord(found[0]):04X} at character {found.start()}"
        what, allowed = f"the {part} holds a control character", "text, tab and line feed"
        return [Problem(what, where, got, allowed)]
    if _PLACEHOLDER in text:
        allowed = f"text without {_PLACEHOLDER}; pictures are put in front by the chat template"
        what = f"the {part} holds the image placeholder"
        return [Problem(what, where, short(text), allowed)]
    return []


def gathered(problems: Sequence[Problem]) -> list[Problem]:
    """Return every problem, but tell only the first `SHOWN` of each kind in full.

    A column that is missing in 4,000 rows would hide all else; the other places still are named,
    those in a file as ranges of its lines or rows.
    """
    kinds: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        kinds[problem.what].append(problem)
    told: list[Problem] = []
    for what, same in kinds.items():
        told += same[:SHOWN]
        if len(same) > SHOWN:
            places = _places([problem.where for problem in same[SHOWN:]])
            told.append(
                replace(same[0], what=f"{what} ({len(same) - SHOWN} more)", where="", got=places)
            )
    return told


def _places(places: Sequence[str]) -> str:
    """Return places in lines: the lines or rows of a file as ranges, others as they stand."""
    rows: dict[str, set[int]] = defaultdict(set)
    others: dict[str, None] = {}
    for place in places:
        found = _ROW.match(place)
        if found:
            rows[found["file"]].add(int(found["row"]))
        else:
            others[place] = None
    told = [f"{file}{', '.join(_ranges(numbers))}" for file, numbers in rows.items()]
    text = "; ".join([*told, *others])
    lines = textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n    ".join(lines)


def _ranges(numbers: Collection[int]) -> list[str]:
    """Return whole numbers as ranges: 3, 4, 5, 9 is `3-5`, `9`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def short(text: str) -> str:
    """Return a text in quotes, its end left out where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def listing(names: Sequence[str], *, most: int = SHOWN) -> str:
    """Return the names, the first `most` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
