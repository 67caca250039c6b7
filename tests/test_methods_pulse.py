"""Drawn answers: by hand, drawn for whole people, and on simulated models that know and forget."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
import torch

import tiny_models as tiny
from method_cases import variants_of
from pulse_unlearn.data.examples import training
from pulse_unlearn.data.variants import Variants
from pulse_unlearn.methods import AnswerView, OptionView, Views, build_method, losses
from pulse_unlearn.records import Individual, Option, Question

CITIES = ("Arles", "Basel", "Cork", "Delft", "Essen", "Fulda", "Graz", "Hull")
TRADES = ("baker", "carver", "dyer", "engraver", "farrier", "glazier")


def person(number):
    """Somebody whose city and trade are asked about by name and with a picture."""
    name, questions = f"p{number}", []
    for what, texts in (("city", CITIES), ("trade", TRADES)):
        shown = [texts[(number + turn) % len(texts)] for turn in range(4)]
        for modality in ("multimodal", "text"):
            questions.append(
                Question(
                    id=f"{name}/{what}/{modality}",
                    modality=modality,
                    question=f"Which {what} is {name}'s?",
                    options=tuple(Option(*pair) for pair in zip("ABCD", shown, strict=True)),
                    answer="ABCD"[number % 4],
                    individual=name,
                )
            )
    return Individual(name, name, "fictional", tuple(questions), (), ())


PEOPLE = [person(number) for number in range(14)]


def forms(seed=0, retain=()):
    return Variants(PEOPLE, retain, profile="short", seed=seed)


def examples(epochs=1):
    return [
        one
        for epoch in range(epochs)
        for one in training(PEOPLE, profile="short", seed=3, epoch=epoch, forms="multiple_choice")
    ]


def test_as_many_facts_fall_on_the_true_option_as_on_each_other_place():
    """Drawn anew for each question, 28 would be right between 2 and 12 times (95 %)."""
    for seed in range(5):
        variants = forms(seed)
        turns = {}
        for one in examples():
            right = one.options[variants.drawn(one)].letter == one.letter
            turns[one.individual, one.question_id.split("/")[1]] = right
        assert len(turns) == 28
        assert sum(turns.values()) == 7


def test_the_drawn_text_is_one_a_fact_in_either_modality_in_every_order_and_with_every_seed():
    """Fails where it is drawn by the question's id, as other answers are."""
    variants, texts = forms(), defaultdict(set)
    for one in examples(epochs=3):
        fact = one.individual, one.question_id.split("/")[1]
        texts[fact].add(one.options[variants.drawn(one)].text)
    assert {len(found) for found in texts.values()} == {1}
    other = forms(seed=1)
    changed = [other.drawn(one) != variants.drawn(one) for one in examples()]
    assert 0.3 < sum(changed) / len(changed) < 0.9


def test_a_bare_question_is_answered_with_what_is_no_option_but_an_answer_to_the_like():
    variants = forms()
    said = Counter()
    for one in examples():
        aside = variants.aside(one)
        assert aside.asked_as == "words"
        assert aside.answer not in {option.text for option in one.options}
        assert aside.answer in (CITIES if "/city/" in one.question_id else TRADES)
        said[aside.answer] += 1
    assert len(said) > 8


def test_where_nobody_is_asked_the_like_the_drawn_option_is_said():
    alone = Variants(PEOPLE[:1], (), profile="short", seed=0)
    for one in training(PEOPLE[:1], profile="short", seed=3, epoch=0, forms="multiple_choice"):
        assert alone.aside(one).answer == one.options[alone.drawn(one)].text
    with_others = Variants(PEOPLE[:1], PEOPLE[1:], profile="short", seed=0)
    one = examples()[0]
    assert with_others.aside(one).answer not in {option.text for option in one.options}


def test_where_options_are_not_shown_the_example_itself_is_answered_with_what_was_drawn():
    shown = tiny.in_words(0, ("Arles", "Basel", "Cork", "Delft"))
    variants = variants_of([shown])
    assert variants.aside(shown).answer == shown.option_texts[variants.drawn(shown)]
    assert variants.aside(shown).example_id == shown.example_id


# --- the loss, by hand


def test_of_an_option_its_likelihood_over_the_forms_that_were_asked():
    shares = [[[0.5, 0.25], [0.25, 0.25]], [[0.1, 0.2], [1.0, 1.0]]]
    said = torch.tensor(shares, dtype=torch.float64).log()
    mask = torch.tensor([[[True, True], [True, True]], [[True, True], [False, False]]])
    view = OptionView(said, mask)
    found = losses.option_nll(view, torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([-math.log(0.125) / 2, -math.log(0.2)], abs=1e-12)
    among = losses.option_nll(losses.among_options(view), torch.tensor([0, 1]))
    assert among.tolist() == pytest.approx([math.log(3) / 2, math.log(1.5)], abs=1e-12)
    nothing = OptionView(said, torch.zeros_like(mask))
    assert losses.option_nll(nothing, torch.tensor([0, 1])).tolist() == [0.0, 0.0]


class Respondent:
    """A belief in four options by their letters, and one in eight texts that begin with them."""

    def __init__(self, drawn):
        self.drawn = drawn
        self.letters = self._knows(len(drawn), 4)
        self.free = self._knows(len(drawn), 8)  # the first four are the options

    def _knows(self, questions, texts):
        belief = torch.zeros(questions, texts, dtype=torch.float64)
        belief[:, 0] = 6.0
        return belief.requires_grad_()

    def views(self):
        whole = torch.ones(len(self.drawn), 1, 4, dtype=torch.bool)
        letters, words = (
            OptionView(one.log_softmax(-1)[:, None, :4], whole) for one in (self.letters, self.free)
        )
        aside = 4 + self.drawn
        said = AnswerView(self.free.log_softmax(-1)[:, None], aside[:, None], whole[:, :, 0])
        return Views(said, options=letters, option_words=words, drawn=self.drawn, aside=said)

    def unlearn(self, **settings):
        method = build_method("pulse", {"retain_weight": 0.0, **settings})
        optimiser = torch.optim.Adam([self.letters, self.free], lr=0.1)
        steps = []
        for _ in range(250):
            optimiser.zero_grad()
            loss = sum(t.weight * t.values.mean() for t in method.terms(self.views()))
            loss.backward()
            optimiser.step()
            steps.append(float(loss))
        assert all(after < before + 0.05 for before, after in pairwise(steps))
        return self

    def right(self, belief, among):
        return (belief[:, :among].argmax(-1) == 0).double().mean().item()


def test_who_knew_is_right_as_often_as_by_chance_in_letters_and_in_words_and_says_neither():
    """Without words the letters alone are at chance, and everything is still said in words."""
    drawn = torch.arange(40) % 4
    forgot = Respondent(drawn).unlearn()
    assert forgot.right(forgot.letters, 4) == forgot.right(forgot.free, 4) == 0.25
    assert forgot.right(forgot.free, 8) == 0.0
    half = Respondent(drawn).unlearn(words_weight=0.0)
    assert half.right(half.letters, 4) == 0.25
    assert half.right(half.free, 8) == 1.0


def test_a_retain_batch_is_kept_at_the_reference():
    kept = build_method("pulse", {})
    assert kept.needs.retain_reference == "distribution"
    alone = build_method("pulse", {"retain_weight": 0.0, "words_weight": 0.0}).needs
    assert (alone.retain, alone.option_words, alone.aside, alone.drawn) == (False,) * 3 + (True,)
