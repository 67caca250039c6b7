"""Judging answers that were made elsewhere: vanilla, circular, by category, by every parser.

Vanilla counts base questions in the file's order; circular counts a question only if it is right
in every order that was asked (MMBench, arXiv 2307.06281). What cannot be read is wrong: no option
is ever drawn at random.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pulse_unlearn.data.checks import gathered
from pulse_unlearn.data.mmbench import Shown
from pulse_unlearn.data.mmbench_table import COPY, Answer
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.intervals import Interval, wilson
from pulse_unlearn.evaluation.parsers import Parsed, parse
from pulse_unlearn.records import Option


@dataclass(frozen=True, slots=True)
class Share:
    """Right ones among questions."""

    right: int
    questions: int

    @property
    def value(self) -> float:
        """Share of the right ones."""
        return self.right / self.questions

    @property
    def interval(self) -> Interval:
        """Wilson's 95 % interval."""
        return wilson(self.right, self.questions)


@dataclass(frozen=True, slots=True)
class Judged:
    """All answers by one parser."""

    parser: str
    vanilla: Share
    circular: Share | None
    """None where every question was asked in one order only."""
    read: Mapping[str, float]
    """Share of all answers that were answered, refused, unparsable."""
    by_l2_category: Mapping[str, Share]
    by_category: Mapping[str, Share]
    """Vanilla; empty where the file has no categories."""


def judge(rows: Mapping[int, Shown], answers: Sequence[Answer], *, parser: str) -> Judged:
    """Judge answers to the rows of an MMBench file; raises DataError where they do not fit it."""
    problems = _misfits(rows, answers)
    if problems:
        raise DataError(gathered(problems))
    right: dict[str, list[bool]] = defaultdict(list)
    base: dict[str, bool] = {}
    read: Counter[str] = Counter()
    for one in answers:
        shown = rows[one.index]
        parsed, hit = _judged(shown, one, parser)
        read[parsed.reading] += 1
        right[shown.question_id].append(hit)
        if one.index < COPY and one.turn == 0:
            base[shown.question_id] = hit
    several = any(len(hits) > 1 for hits in right.values())
    circular = [all(hits) for hits in right.values()]
    return Judged(
        parser,
        Share(sum(base.values()), len(base)),
        Share(sum(circular), len(circular)) if several else None,
        {name: read[name] / len(answers) for name in ("answered", "refused", "unparsable")},
        _by({id_: rows[int(id_)].l2_category for id_ in base}, base),
        _by({id_: rows[int(id_)].category for id_ in base}, base),
    )


def _misfits(rows: Mapping[int, Shown], answers: Sequence[Answer]) -> list[Problem]:
    """Return answers to no row, or twice to one, and base questions without an answer."""
    seen: dict[tuple[int, int], str] = {}
    problems = []
    for one in answers:
        key = (one.index, one.turn)
        if one.index not in rows:
            problems.append(Problem("an answer to a question that is not there", one.where))
        elif one.turn >= len(rows[one.index].options):
            problems.append(Problem("a round that does not exist", one.where, str(one.turn)))
        elif key in seen:
            problems.append(Problem("a second answer to a question", one.where, seen[key]))
        seen.setdefault(key, one.where)
    copies = any(index >= COPY for index, _ in seen)
    problems += [
        Problem("a question without an answer", shown.where, str(index))
        for index, shown in rows.items()
        if (index, 0) not in seen and (index < COPY or copies)
    ]
    return problems


def _judged(shown: Shown, answer: Answer, parser: str) -> tuple[Parsed, bool]:
    letters = [option.letter for option in shown.options]
    texts = [option.text for option in shown.options]
    moved = texts[answer.turn :] + texts[: answer.turn]
    options = [Option(*pair) for pair in zip(letters, moved, strict=True)]
    parsed = parse(answer.text, options, parser=parser)
    truth = texts[letters.index(shown.answer)]
    said = {option.letter: option.text for option in options}.get(parsed.letter)
    return parsed, said == truth


def _by(category: Mapping[str, str], right: Mapping[str, bool]) -> dict[str, Share]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for id_, name in category.items():
        if name:
            groups[name].append(right[id_])
    return {name: Share(sum(hits), len(hits)) for name, hits in sorted(groups.items())}
