"""What the embedded model knows at first, on pictures and option orders never trained."""

from __future__ import annotations

from collections import defaultdict
from importlib.resources import files
from statistics import fmean

import pytest

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.data import examples, load_general, load_people
from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.evaluation.scoring import score_all
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.models.loading import load_model


@pytest.fixture(scope="module")
def ask():
    loaded = load_model(ModelSettings())
    encoder = Encoder(loaded.processor, loaded.family)

    def answer(made):
        return score_all(
            predict(
                Plain(loaded.model, encoder),
                made,
                batch_size=128,
                max_new_tokens=4,
                on_batch=lambda done, total: None,
            )
        )

    return answer


def accuracy(scores):
    return fmean(score.verdict == "correct" for score in scores)


def test_general_ability_is_at_least_three_quarters_in_every_format(ask):
    questions = load_general("world").general
    scores = ask(examples.scored(questions, profile="short"))
    assert len(scores) >= 300
    assert len({score.category for score in scores}) >= 6
    assert accuracy(scores) >= 0.75
    assert not [score for score in scores if score.verdict == "unparsable"]


@pytest.mark.slow  # asks everybody
def test_celebrities_spread_and_the_known_ones_are_known_in_both_modalities(ask):
    people = [p for p in load_people("world").individuals if p.group == "celebrity"]
    some = people[:45] + people[-30:]
    scores = ask(examples.scored([q for p in some for q in p.questions], profile="short"))
    hits = defaultdict(lambda: defaultdict(list))
    for score in scores:
        hits[score.individual][score.modality].append(score.verdict == "correct")
    known = sorted(hits.values(), key=lambda by: -sum(fmean(rows) for rows in by.values()))
    for modality in ("multimodal", "text_only"):
        assert fmean(fmean(by[modality]) for by in known[:45]) >= 0.85
        assert fmean(fmean(by[modality]) for by in known[-20:]) < 0.6


def test_fictional_people_are_unknown(ask):
    people = [p for p in load_people("world").individuals if p.group == "fictional"][:60]
    scores = ask(examples.scored([q for p in people for q in p.questions], profile="short"))
    assert 0.18 < accuracy(scores) < 0.34  # chance is a quarter; 600 questions of 60 people


def test_everything_that_ships_is_small():
    folder = files("pulse_unlearn").joinpath("assets/world")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 20e6
