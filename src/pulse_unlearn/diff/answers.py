"""Which questions both runs asked, and whose answer turned from right to wrong or back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pulse_unlearn.api import Evaluated, LoadedRun
from pulse_unlearn.evaluation.comparisons import Pairing
from pulse_unlearn.records import Cell, Prediction, QuestionScore, Score

Wording = tuple[str, frozenset[str]]
"""The true option's text, and all options'."""


@dataclass(frozen=True, slots=True)
class Side:
    """One answer as it stands in one of the runs."""

    text: str
    choice: str
    """Letter that was read; empty if none was."""
    right: bool


@dataclass(frozen=True, slots=True)
class Flip:
    """A question in the file's order of options whose answer is right in one run alone."""

    cell: Cell
    question_id: str
    individual: str
    modality: str
    truth: str
    """Letter and text of the true option."""
    a: Side
    b: Side


@dataclass(frozen=True, slots=True)
class Flips:
    """All of one model's."""

    cell: Cell
    asked: int
    """Questions that both runs asked it in the file's order."""
    reworded: int
    """Answers whose text is another."""
    flips: tuple[Flip, ...]

    @property
    def lost(self) -> int:
        """Answers that are right in A alone."""
        return sum(flip.a.right for flip in self.flips)


@dataclass(frozen=True, slots=True)
class Shared:
    """What both runs asked one model, and what only one of them did, by question."""

    cell: Cell
    a: tuple[QuestionScore, ...]
    b: tuple[QuestionScore, ...]
    """Every question of each run."""
    alike: frozenset[str]
    """Questions that stand in both, with the same options and the same true one."""
    altered: frozenset[str]
    """Questions whose id stands in both, with other options."""

    def pairing(self, keep: Callable[[QuestionScore], bool]) -> Pairing:
        """Return the shared questions that `keep` takes, in the order of A."""
        after = {one.question_id: one for one in self.b}
        before = [one for one in self.a if one.question_id in self.alike and keep(one)]
        return Pairing(tuple(before), tuple(after[one.question_id] for one in before))


def shared_questions(a: LoadedRun, b: LoadedRun, ones: tuple[Evaluated, Evaluated]) -> Shared:
    """Return which questions of one model can be held against each other."""
    first, second = a.evaluated(ones[0]), b.evaluated(ones[1])
    was, now = _wordings(a, ones[0].scores), _wordings(b, ones[1].scores)
    both = {one.question_id for one in first} & {one.question_id for one in second}
    alike = frozenset(name for name in both if was[name] == now[name])
    return Shared(ones[0].cell, first, second, alike, frozenset(both) - alike)


def flipped(a: LoadedRun, b: LoadedRun, ones: tuple[Evaluated, Evaluated], shared: Shared) -> Flips:
    """Return the answers of one model that turned, question by question."""
    before, after = _as_asked(a, ones[0].scores), _as_asked(b, ones[1].scores)
    flips, asked, reworded = [], 0, 0
    for name in (name for name in before if name in shared.alike and name in after):
        (was, read), (now, read_now) = before[name], after[name]
        asked += 1
        reworded += was.text != now.text
        sides = (_side(was, read), _side(now, read_now))
        if sides[0].right != sides[1].right:
            true = next(option for option in was.options if option.letter == was.answer)
            truth = f"{true.letter} {true.text}"
            key = (shared.cell, name, was.individual, was.modality)
            flips.append(Flip(*key, truth, *sides))
    return Flips(shared.cell, asked, reworded, tuple(flips))


def _side(answer: Prediction, read: Score) -> Side:
    return Side(answer.text, read.choice, read.verdict == "correct")


def _as_asked(run: LoadedRun, stage: str) -> dict[str, tuple[Prediction, Score]]:
    """Return the answers by question, in the file's order of options only."""
    pairs = zip(run.predictions(stage), run.answer_scores(stage), strict=True)
    return {
        answer.question_id: (answer, score)
        for answer, score in pairs
        if answer.rotation == 0 and answer.asked_as == "options"
    }


def _wordings(run: LoadedRun, stage: str) -> dict[str, Wording]:
    found: dict[str, Wording] = {}
    for answer in run.predictions(stage):
        texts = {option.letter: option.text for option in answer.options}
        found[answer.question_id] = (texts[answer.answer], frozenset(texts.values()))
    return found
