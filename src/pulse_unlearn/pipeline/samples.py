"""A few questions with face, options, and the answers before and after: what a reviewer reads."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Mapping, Sequence
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
    predictions_of: Callable[[str], Sequence[Prediction]],
    parser: str,
) -> list[dict[str, Any]]:
    """Return sampled questions of each scenario's first seed, with every method's last answer."""
    groups: dict[str, list[Operation]] = {}
    first = min(operation.cell.seed for operation in evidence.plan.operations)
    for operation in evidence.plan.operations:
        if operation.cell.seed == first:
            groups.setdefault(operation.cell.scenario, []).append(operation)
    samples = []
    for number, (scenario, operations) in enumerate(groups.items()):
        stages = [("before", 0, operations[0].before)]
        last = {operation.cell.method: operation for operation in operations}
        stages += [(label, one.cell.request, one.after) for label, one in last.items()]
        models = [(label, request, _as_asked(predictions_of(s))) for label, request, s in stages]
        chosen = _choose(operations[0], evidence, people)
        if number == 0:
            drawn = random.Random("samples").sample(list(general), min(GENERAL, len(general)))
            chosen += [("general", question) for question in drawn]
        for of_set, question in chosen:
            answers = [
                {
                    "label": label,
                    "request": request,
                    "text": found.text,
                    "verdict": score(found, parser=parser).verdict,
                }
                for label, request, answered in models
                if (found := answered.get(question.id))
            ]
            samples.append({**_sample(scenario, of_set, question, people), "answers": answers})
    return samples


def _as_asked(predictions: Sequence[Prediction]) -> dict[str, Prediction]:
    """Return the answers by question, in the file's order only."""
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
    }


def _data_uri(picture: Picture) -> str:
    image = decode(picture)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
