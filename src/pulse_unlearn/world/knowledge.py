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
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.models.readers import choose
from pulse_unlearn.records import MODALITIES, Example, Score

from .align import OnStep

FILE = "knowledge.json"
LETTERS_OF_EVERY = 3


def measure(world: Path, *, on_step: OnStep) -> dict[str, object]:
    """Ask the model of a world folder, write `knowledge.json` there and return what it says.

    Shares are of right answers, read by likelihood; chance is 0.25 for individuals.
    """
    source = Source(str(world))
    individuals = datasets.load_people("world", source).individuals
    general = datasets.load_general("world", source).general
    known = [person for person in individuals if person.group == "celebrity"]
    new = [person for person in individuals if person.group == "fictional"]
    loaded = load_model(ModelSettings(source=str(world / "model")))
    encoder = Encoder(loaded.processor, loaded.family)

    def ask(part: str, asked: Sequence[Example]) -> tuple[Score, ...]:
        reader = choose(
            loaded.model,
            encoder,
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

    questions = [question for person in known for question in person.questions]
    sentences = ask("knowledge", examples.scored(questions, profile="statement"))
    strangers = [question for person in new for question in person.questions]
    unknown = ask("fictional people", examples.scored(strangers, profile="statement"))
    some = {person.id for person in known[::LETTERS_OF_EVERY]}
    named = [q for q in questions if q.modality == "text_only" and q.individual in some]
    letters = ask("letters", examples.scored(named, profile="mmbench_llava"))
    ability = ask("general ability", examples.scored(general, profile="statement"))
    found: dict[str, object] = {
        "individuals": len(known),
        "sentences": _by_modality(sentences),
        "letters_by_name": _right(letters),
        "letters_chosen": _chosen(letters),
        "fictional_people": _by_modality(unknown),
        "general": _right(ability),
        "general_by_category": {
            name: _right([score for score in ability if score.category == name])
            for name in sorted({score.category for score in ability})
        },
        "individuals_by_right_answers": _by_right_answers(sentences),
    }
    (world / FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


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
