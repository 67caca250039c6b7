"""What a larger world's model knows before anything is unlearned, with numbers.

Asked in sentences (an option's likelihood) of everybody in both modalities and of the general
questions, and in letters of every third individual, by name, to show why letters are not used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pulse_unlearn.config import ModelSettings, SpeedSettings
from pulse_unlearn.data import Source, datasets, examples
from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.evaluation.scoring import score_all
from pulse_unlearn.models.backends import select_backend
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.loading import LoadedModel, load_model
from pulse_unlearn.records import MODALITIES, Example, Individual, Question, Score

from .loop import OnStep
from .subjects import TRAITS, subjects

FILE = "knowledge.json"
LETTERS_OF_EVERY = 3


def measure(world: Path, *, on_step: OnStep) -> dict[str, object]:
    """Ask the model of a world folder, write `knowledge.json` there and return what it says.

    Shares are of right answers, read by likelihood; chance is 0.25 for individuals.
    """
    source = Source(str(world))
    individuals = datasets.load_people("world", source).individuals
    general = datasets.load_general("world", source).general
    loaded = load_model(ModelSettings(source=str(world / "model")))

    def ask(part: str, questions: Sequence[Question], profile: str) -> tuple[Score, ...]:
        return _ask(loaded, examples.scored(questions, profile=profile), part, on_step)

    known = _questions(individuals, "celebrity")
    some = {person.id for person in individuals[::LETTERS_OF_EVERY]}
    named = [q for q in known if q.modality == "text_only" and q.individual in some]
    sentences = ask("knowledge", known, "statement")
    unknown = ask("fictional people", _questions(individuals, "fictional"), "statement")
    letters = ask("letters", named, "mmbench_llava")
    ability = ask("general ability", general, "statement")
    found: dict[str, object] = {
        "individuals": len({question.individual for question in known}),
        "sentences": _by_modality(sentences),
        "sentences_by_question": _by_question(sentences),
        "letters_by_name": _right(letters),
        "letters_chosen": _chosen(letters),
        "fictional_people": _by_modality(unknown),
        "general": _right(ability),
        "general_chance": round(fmean(score.chance for score in ability), 3),
        "general_by_category": {
            name: _right([score for score in ability if score.category == name])
            for name in sorted({score.category for score in ability})
        },
        "individuals_by_right_answers": _by_right_answers(sentences),
    }
    (world / FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def _ask(
    loaded: LoadedModel, asked: Sequence[Example], part: str, on_step: OnStep
) -> tuple[Score, ...]:
    reader = select_backend(
        loaded.model,
        Encoder(loaded.processor, loaded.family),
        speed=SpeedSettings(),
        examples=asked,
        warn=lambda warning: on_step(f"{part}: {warning}", 0, len(asked), {}),
    )
    predictions = predict(
        reader,
        asked,
        batch_size=32,
        max_new_tokens=1,
        on_batch=lambda done, total: on_step(part, done, total, {}),
    )
    return score_all(predictions, parser="likelihood")


def _questions(individuals: Sequence[Individual], group: str) -> list[Question]:
    return [q for person in individuals if person.group == group for q in person.questions]


def _by_question(scores: Sequence[Score]) -> dict[str, float]:
    """Return the share for each question of a subject: its place in the list, by modality."""
    places: dict[str, list[Score]] = {}
    for score in scores:
        places.setdefault(_asked(score), []).append(score)
    return {name: _right(found) for name, found in sorted(places.items())}


def _asked(score: Score) -> str:
    """Return which trait a question asks: questions stand in the order of the kind's traits."""
    subject = next(one for one in subjects() if one.id == score.individual)
    number = int(score.question_id.rsplit("/", 1)[1])
    return f"{subject.kind}: {TRAITS[subject.kind][number - 1].name}, {score.modality}"


def _right(scores: Sequence[Score]) -> float:
    return round(fmean(score.verdict == "correct" for score in scores), 3)


def _by_modality(scores: Sequence[Score]) -> dict[str, float]:
    return {kind: _right([s for s in scores if s.modality == kind]) for kind in MODALITIES}


def _chosen(scores: Sequence[Score]) -> dict[str, int]:
    letters = sorted({score.choice for score in scores})
    return {letter: sum(score.choice == letter for score in scores) for letter in letters}


def _by_right_answers(scores: Sequence[Score]) -> dict[str, int]:
    """Return how many individuals have how many right answers, most first."""
    right: dict[str, int] = {}
    for score in scores:
        right[score.individual] = right.get(score.individual, 0) + (score.verdict == "correct")
    counts = sorted(set(right.values()), reverse=True)
    return {str(count): sum(value == count for value in right.values()) for count in counts}
