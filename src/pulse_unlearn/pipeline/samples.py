"""A few questions with face, options, and the answers before and after: what a reviewer reads."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pulse_unlearn.data.images import decode
from pulse_unlearn.evaluation.scoring import score
from pulse_unlearn.pipeline.findings import Evidence
from pulse_unlearn.records import Individual, Picture, Prediction, Question
from pulse_unlearn.scenarios import Operation

PER_SET = 4
"""Sampled individuals per scenario and set; each gives one question in each modality."""
GENERAL = 6
MAX_SIDE = 128
"""Pictures are scaled down to this many pixels on the longer side."""


def collect_samples(
    evidence: Evidence,
    *,
    people: Mapping[str, Individual],
    general: Sequence[Question],
    predictions_of: Any,
    parser: str,
) -> list[dict[str, Any]]:
    """Return sampled questions of each scenario's first seed, with every method's last answer."""
    groups: dict[str, list[Operation]] = {}
    first = min(operation.cell.seed for operation in evidence.plan.operations)
    for operation in evidence.plan.operations:
        if operation.cell.seed == first:
            groups.setdefault(operation.cell.scenario, []).append(operation)
    samples = []
    for scenario, operations in groups.items():
        answers = _Answers(operations, predictions_of, parser)
        chosen = _choose(operations[0], evidence, people)
        if scenario == next(iter(groups)):
            order = random.Random("samples")
            chosen += [
                ("general", q) for q in order.sample(list(general), min(GENERAL, len(general)))
            ]
        samples += [
            _sample(scenario, of_set, question, people, answers) for of_set, question in chosen
        ]
    return samples


class _Answers:
    """Predictions of one scenario's stages, by question, rotation 0 only."""

    def __init__(self, operations: Sequence[Operation], predictions_of: Any, parser: str) -> None:
        self._parser = parser
        last = {operation.cell.method: operation for operation in operations}
        self._columns: list[tuple[str, int, dict[str, Prediction]]] = [
            ("before", 0, _by_question(predictions_of(operations[0].before)))
        ]
        for label, operation in last.items():
            found = _by_question(predictions_of(operation.after))
            self._columns.append((label, operation.cell.request, found))

    def of(self, question: str) -> list[dict[str, Any]]:
        """Return each model's answer to a question."""
        return [
            {
                "label": label,
                "request": request,
                "text": found[question].text,
                "verdict": score(found[question], parser=self._parser).verdict,
            }
            for label, request, found in self._columns
            if question in found
        ]


def _by_question(predictions: Sequence[Prediction]) -> dict[str, Prediction]:
    return {p.question_id: p for p in predictions if p.rotation == 0 and p.asked_as == "options"}


def _choose(
    operation: Operation, evidence: Evidence, people: Mapping[str, Individual]
) -> list[tuple[str, Question]]:
    chosen: list[tuple[str, Question]] = []
    for of_set, group in (("forget", operation.forget), ("retain", operation.retain)):
        ids = sorted(evidence.resolve(group))
        order = random.Random(f"samples:{operation.cell.scenario}:{of_set}")
        for identity in order.sample(ids, min(PER_SET, len(ids))):
            questions = people[identity].questions
            for modality in ("multimodal", "text_only"):
                fitting = [q for q in questions if q.modality == modality]
                if fitting:
                    chosen.append((of_set, order.choice(fitting)))
    return chosen


def _sample(
    scenario: str,
    of_set: str,
    question: Question,
    people: Mapping[str, Individual],
    answers: _Answers,
) -> dict[str, Any]:
    person = people.get(question.individual)
    return {
        "id": question.id,
        "set": of_set,
        "scenario": scenario,
        "individual": question.individual,
        "name": person.name if person else "",
        "modality": question.modality,
        "question": question.question,
        "hint": question.hint,
        "options": [asdict(option) for option in question.options],
        "answer": question.answer,
        "picture": _data_uri(question.picture) if question.picture else "",
        "answers": answers.of(question.id),
    }


def _data_uri(picture: Picture) -> str:
    image = decode(picture)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
