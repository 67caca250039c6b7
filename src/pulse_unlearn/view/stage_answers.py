"""The stored answers of one score stage, held as columns; rows are made for what is shown only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.evaluation.table import (
    open_predictions,
    open_scores,
    predictions_of,
    scores_of,
)
from pulse_unlearn.records import Prediction, QuestionScore, Score

PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True, slots=True)
class Given:
    """The answer to a question as the paper asks it, without the readings that need more."""

    individual: str
    modality: str
    text: str
    verdict: str
    choice: str
    """Letter that was read; empty if none was."""
    mentions: bool
    """Whether the text names the true option anywhere."""


@dataclass(slots=True)
class StageAnswers:
    """The answers of one score stage.

    Verdicts are those of `scores/`, where the run has written them; else they are read by `parser`.
    """

    table: Any = field(repr=False)
    scores: Any = field(repr=False)
    parser: str
    rows: Mapping[str, Sequence[int]] = field(repr=False)
    """Question -> its rows, in the order in which questions were asked."""
    _given: dict[str, Given] = field(default_factory=dict, repr=False)
    _read: dict[str, QuestionScore] = field(default_factory=dict, repr=False)

    @property
    def questions(self) -> Sequence[str]:
        """Ids of the questions asked, in order."""
        return tuple(self.rows)

    def given(self) -> Mapping[str, Given]:
        """Return each question's answer as the paper asks it: its options in the file's order."""
        if not self._given:
            table = self.table
            shown = [
                row
                for row, (turn, how) in enumerate(
                    zip(
                        table.column("rotation").to_pylist(),
                        table.column("asked_as").to_pylist(),
                        strict=True,
                    )
                )
                if turn == 0 and how == "options"
            ]
            names = ("question_id", "individual", "modality", "text")
            asked = table.select(names).take(shown).to_pylist()
            judged = self._judged(shown)
            self._given = {
                one["question_id"]: Given(
                    one["individual"], one["modality"], one["text"], verdict, choice, truth in named
                )
                for one, (verdict, choice, truth, named) in zip(asked, judged, strict=True)
            }
        return self._given

    def _judged(self, rows: Sequence[int]) -> list[tuple[str, str, str, str]]:
        """Return verdict, letter read, true letter and letters mentioned of each row."""
        names = ("verdict", "choice", "answer", "mentioned")
        if self.scores is not None:
            columns = self.scores.select(names).take(rows).to_pydict()
            return list(zip(*(columns[name] for name in names), strict=True))
        scores = score_all(predictions_of(self.table.take(rows)), parser=self.parser)
        return [(one.verdict, one.choice, one.answer, one.mentioned) for one in scores]

    def answers(self, question: str) -> list[tuple[Prediction, Score]]:
        """Return every stored answer to a question, in every order and in words."""
        rows = self.rows.get(question, ())
        predictions = predictions_of(self.table.take(rows)) if rows else ()
        return list(zip(predictions, self._scores_of(rows, predictions), strict=True))

    def _scores_of(
        self, rows: Sequence[int], predictions: Sequence[Prediction]
    ) -> tuple[Score, ...]:
        if self.scores is None:
            return score_all(predictions, parser=self.parser)
        return scores_of(self.scores.take(rows)) if rows else ()

    def readings(self, questions: Iterable[str]) -> Mapping[str, QuestionScore]:
        """Return what all answers to each question say together; computed once."""
        wanted = [one for one in questions if one not in self._read and one in self.rows]
        if wanted:
            rows = [row for question in wanted for row in self.rows[question]]
            predictions = predictions_of(self.table.take(rows))
            for one in by_question(predictions, self._scores_of(rows, predictions)):
                self._read[one.question_id] = one
        return self._read


def open_answers(folder: Path, scores: Path, *, parser: str) -> StageAnswers:
    """Open a score stage's answers, with their scores if that file is about the same ones.

    Raises StoreError, Corrupted if a file is not the table that was written.
    """
    table = open_predictions(folder / PREDICTIONS)
    judged = open_scores(scores) if scores.is_file() else None
    if judged is not None and judged.column("example_id") != table.column("example_id"):
        judged = None
    rows: dict[str, list[int]] = defaultdict(list)
    for row, question in enumerate(table.column("question_id").to_pylist()):
        rows[question].append(row)
    return StageAnswers(table, judged, parser, rows)
