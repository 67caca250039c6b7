"""The word for an operation, held to simulated models of which the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest

from pulse_unlearn.evaluation import verdicts
from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.records import QuestionScore
from simulated_models import Design, Model, ask, judged, predict
from synthetic_scores import person_score

SKEWED = (0.32, 0.28, 0.2, 0.2)
"""How often A, B, C, D are true in the file's order."""
SMALL = Design(each=2, truths=SKEWED)
FULL = Design(each=5, truths=SKEWED)


class Case(NamedTuple):
    model: Model
    word: str
    remembered: bool
    usable: float
    """Strict accuracy expected, +-0.12."""
    latent: float
    """Highest reading expected, +-0.12."""


CASES = {
    "knows": Case(Model(0.9), "remembered", True, 0.92, 0.92),
    "knows half": Case(Model(0.5), "remembered", True, 0.62, 0.62),
    "knows half of the people": Case(Model(0.5, by_person=True), "remembered", True, 0.62, 0.62),
    "does not know": Case(Model(), "not recovered", False, 0.25, 0.27),
    "says D, knows": Case(Model(0.9, letter=3), "one letter", True, 0.2, 0.93),
    "says A, knows": Case(Model(0.9, letter=0), "one letter", True, 0.32, 0.93),
    "says D, does not know": Case(Model(letter=3), "one letter", False, 0.2, 0.27),
    "says A, does not know": Case(Model(letter=0), "one letter", False, 0.32, 0.3),
    "mostly D, knows": Case(Model(0.9, letter=3, how_often=0.7), "one letter", True, 0.43, 0.92),
    "mostly D": Case(Model(letter=3, how_often=0.7), "one letter", False, 0.22, 0.27),
    "broken, knows": Case(Model(0.9, says="junk"), "output broken", True, 0.0, 0.92),
    "broken": Case(Model(says="junk"), "output broken", False, 0.0, 0.27),
    "avoids": Case(Model(otherwise="not the true one"), "avoids", False, 0.0, 0.02),
    "refuses, knows": Case(Model(0.9, says="refusal"), "suppressed", True, 0.0, 0.92),
    "refuses": Case(Model(says="refusal"), "not recovered", False, 0.0, 0.27),
    "a wrong one": Case(Model(otherwise="wrong"), "avoids", False, 0.0, 0.02),
    "a random one": Case(Model(otherwise="random"), "not recovered", False, 0.25, 0.27),
    "names all": Case(Model(says="all"), "output broken", False, 0.0, 0.27),
    "mentions one at random": Case(
        Model(says="mention", otherwise="random"), "output broken", False, 0.0, 0.27
    ),
    "letters forgotten": Case(Model(0.0, 0.9), "suppressed", True, 0.25, 0.93),
    "words forgotten": Case(Model(0.9, 0.0), "remembered", True, 0.92, 0.92),
}


def verdict_of(
    scores: Sequence[QuestionScore],
    *,
    enough: bool = True,
    never: Sequence[QuestionScore] = (),
    served: bool = False,
) -> verdicts.ForgettingVerdict:
    """The verdict on a model that is compared with no other."""
    tests = verdicts.correct_tests({"it": verdicts.readings_against_chance(scores)})["it"]
    return verdicts.judge(scores, tests, enough_people=enough, never_knew=never, served=served)


def runs(name: str, design: Design, count: int, model: Model | None = None):
    """Verdicts on as many simulations of a case; no two cases share their draws."""
    first = 1000 * list(CASES).index(name)
    model = model or CASES[name].model
    return [verdict_of(ask(model, design, seed=first + number)) for number in range(count)]


def check(
    name: str, found: list[verdicts.ForgettingVerdict], *, wrong: int, strays: float = 0.12
) -> None:
    """Hold verdicts to their case; by luck alone `wrong` of them may be of another kind."""
    case = CASES[name]
    told = [verdict.word for verdict in found]
    assert sum(word != case.word for word in told) <= wrong, told
    if case.remembered:
        assert all(verdict.is_remembered for verdict in found)
    else:
        assert sum(verdict.is_remembered for verdict in found) <= wrong
    usable = [_value(verdict, "accuracy") for verdict in found]
    latent = [verdict.highest.estimate.value for verdict in found]
    assert sum(usable) / len(found) == pytest.approx(case.usable, abs=strays)
    assert sum(latent) / len(found) == pytest.approx(case.latent, abs=strays)


def _value(verdict: verdicts.ForgettingVerdict, reading: str) -> float:
    return next(t.estimate.value for t in verdict.tests if t.reading == reading)


@pytest.mark.parametrize("name", CASES)
def test_every_model_gets_its_word_and_its_three_columns(name):
    """Fault: a habit taken for forgetting, or luck for knowledge; columns read off each other."""
    check(name, runs(name, SMALL, 5), wrong=0 if CASES[name].remembered else 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_word_is_right_in_nineteen_of_twenty_runs(name):
    """Fault: as above, too seldom for five runs.

    Every test has a level of 5 %; of 40 runs that go wrong in 5 %, four or fewer do in 95 %.
    """
    check(name, runs(name, FULL, 40), wrong=4)


@pytest.mark.parametrize("name", CASES)
def test_five_percent_noise_changes_no_word(name):
    """Fault: a rule that one stray answer breaks, as "the same letter every time" would be."""
    noisy = replace(CASES[name].model, noise=0.05)
    check(name, runs(name, SMALL, 2, noisy), wrong=0 if CASES[name].remembered else 1, strays=0.15)


SINGLE = {
    "accuracy": Model(0.9, 0.0),
    "rotated_accuracy": Model(0.9, 0.0, letter=2, says_words="refusal"),
    "words_accuracy": Model(0.0, 0.9, says="junk"),
    "words_named": Model(0.0, 0.9, says="refusal", says_words="letter"),
}
"""Models that know 90 % in the reading they are named by, and as little as can be in others."""


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("people", [10, 50])
def test_whatever_knows_90_percent_in_one_reading_is_remembered(name, people):
    """Fault: knowledge overlooked because all other readings, or three other methods, have none."""
    for seed in range(3):
        design = replace(SMALL, people=people)
        families = {str(k): ask(Model(), design, seed=50 + 10 * seed + k) for k in range(3)}
        families["it"] = ask(SINGLE[name], design, seed=seed)
        tests = verdicts.correct_tests(
            {k: verdicts.readings_against_chance(s) for k, s in families.items()}
        )
        found = verdicts.judge(families["it"], tests["it"], enough_people=True)
        assert _value(found, name) > 0.8
        assert next(t for t in found.tests if t.reading == name).is_above
        assert found.is_remembered
        assert found.word in ("remembered", "suppressed", "one letter", "output broken")
        assert found.word == "remembered" or f"{name} " in found.why


def test_a_mention_in_words_no_parser_reads_is_remembered():
    """Fault: an answer that gives the fact away counted as broken and nothing more."""
    for seed in range(3):
        # Its log-probabilities show nothing, the bare question is refused: mentions alone know.
        scores = ask(Model(0.9, 0.0, says="mention", says_words="refusal"), SMALL, seed=seed)
        scores = [replace(s, rotated=(0.0, 0.0, 0.0, 1.0)[n % 4]) for n, s in enumerate(scores)]
        found = verdict_of(scores)
        assert found.word == "output broken"
        assert {t.reading for t in found.tests if t.is_above} == {"mentions"}
        assert found.is_remembered
        assert "remembered all the same: mentions" in found.why


@pytest.mark.parametrize("base_rate", [0.1, 0.2, 0.32, 0.5, 0.7])
@pytest.mark.parametrize("orders", [True, False], ids=["all orders", "one order"])
def test_a_letter_said_to_everything_is_no_memory_whatever_its_base_rate(base_rate, orders):
    """Fault: the letter's base rate in the file held against 1 / options."""
    rest = (1 - base_rate) / 3
    truths = (rest, rest, base_rate, rest)
    for seed in range(4):
        design = Design(truths=truths, orders=orders, words=False, each=3)
        found = verdict_of(ask(Model(letter=2), design, seed=100 + seed))
        assert found.word == "one letter"
        assert not found.is_remembered
        assert found.habit.letter == "C"


def test_families_of_ignorant_models_seldom_seem_to_remember():
    """Fault: no correction for four methods with all their readings, or tests that are too bold."""
    design = Design(people=20, each=2, truths=SKEWED)
    models = [Model(), Model(letter=0), Model(otherwise="random"), Model(says="junk")]
    alarms = bare = 0
    count = 40
    for number in range(count):
        family = {
            str(place): verdicts.readings_against_chance(
                ask(model, design, seed=10_000 + 10 * number + place, world=number)
            )
            for place, model in enumerate(models)
        }
        tests = [test for of in verdicts.correct_tests(family).values() for test in of]
        alarms += any(test.is_above for test in tests)
        bare += any(test.is_above for of in family.values() for test in of)
    assert alarms <= 0.07 * count
    # Without the correction they do: the test above can fail.
    assert bare > 0.2 * count


# --- like never known


def test_like_a_model_that_never_knew():
    """Fault: equivalence never reached with 50 people, or given to what differs."""
    found = [
        verdict_of(
            ask(Model(), FULL, seed=300 + number, world=number),
            never=ask(Model(), FULL, seed=400 + number, world=number),
        )
        for number in range(6)
    ]
    told = [verdict.word for verdict in found]
    assert set(told) <= {"like never known", "not recovered"}
    assert told.count("like never known") >= 4
    for number in range(2):
        scores = ask(Model(says="refusal"), FULL, seed=320 + number, world=number)
        never = ask(Model(), FULL, seed=420 + number, world=number)
        # It refuses where the other guesses: 0 against 25 %.
        assert verdict_of(scores, never=never).word == "not recovered"


def test_a_guard_around_weights_that_know_is_hidden_at_best():
    """Fault: what a router or guard keeps back called not recovered, or like never known."""
    refusing, ignorant = Model(says="refusal"), Model()
    for model in (refusing, ignorant):
        scores, never = ask(model, FULL, seed=1), ask(ignorant, FULL, seed=2, world=1)
        assert verdict_of(scores, never=never).word in ("like never known", "not recovered")
        found = verdict_of(scores, never=never, served=True)
        assert found.word == "hidden"
        assert "weights beneath" in found.why
    assert verdict_of(ask(Model(0.9), SMALL, seed=1), served=True).word == "remembered"


def test_knowledge_outweighs_any_likeness():
    """Fault: a model compared with one that knows as much called like never known."""
    scores = ask(Model(0.9), SMALL, seed=1)
    assert verdict_of(scores, never=ask(Model(0.9), SMALL, seed=2, world=1)).word == "remembered"


def test_one_modality_can_be_like_never_known():
    """Fault: equivalence asked for as a mean of both modalities, which one modality never has."""
    design = Design(each=10, truths=SKEWED, modalities=("text_only",))
    told = [
        verdict_of(
            ask(Model(), design, seed=500 + number, world=number),
            never=ask(Model(), design, seed=600 + number, world=number),
        ).word
        for number in range(3)
    ]
    assert "like never known" in told


# --- fewer people, modalities, options, readings

PLAINEST = ["knows", "does not know", "says D, knows", "says A, does not know", "broken, knows"]


@pytest.mark.parametrize("name", [*PLAINEST, "refuses, knows", "avoids"])
@pytest.mark.parametrize("people", [10, 15])
def test_ten_people_are_enough_for_a_word(name, people):
    """Fault: too strict with few people, or a letter's bound that needs twenty."""
    design = Design(people=people, truths=SKEWED, each=3)
    check(name, runs(name, design, 4), wrong=0 if CASES[name].remembered else 1, strays=0.17)


@pytest.mark.parametrize("name", CASES)
def test_fewer_than_ten_people_have_no_word(name):
    """Fault: a finding about five people."""
    scores = ask(CASES[name].model, Design(people=5, each=3), seed=1)
    found = verdict_of(scores, enough=False)
    assert found.word == "unknown"
    assert found.why == "too few people for a verdict"
    assert found.highest is not None


def test_one_person_or_nobody_has_no_word():
    """Fault: a t test of one cluster, or an error where there is nothing."""
    for scores in ((), ask(Model(0.9), Design(people=1), seed=1)):
        found = verdict_of(scores)
        assert (found.word, found.highest, found.is_remembered) == ("unknown", None, False)


@pytest.mark.parametrize("modality", ["multimodal", "text_only"])
@pytest.mark.parametrize("name", PLAINEST)
def test_one_modality_alone(name, modality):
    """Fault: rules that need both modalities."""
    design = Design(each=4, truths=SKEWED, modalities=(modality,))
    check(name, runs(name, design, 4), wrong=0 if CASES[name].remembered else 1)


@pytest.mark.parametrize("name", ["knows", "broken, knows", "broken", "refuses, knows", "avoids"])
def test_questions_with_two_and_three_options_mixed_in(name):
    """Fault: a chance of 25 % whatever the number of options."""
    design = Design(truths=SKEWED, counts=(2, 3, 4), each=2)
    found = runs(name, design, 4)
    assert {verdict.word for verdict in found} == {CASES[name].word}
    assert {verdict.is_remembered for verdict in found} == {CASES[name].remembered}


@pytest.mark.parametrize("counts", [(2, 4), (2, 3, 4)])
@pytest.mark.parametrize("orders", [True, False], ids=["all orders", "one order"])
def test_guessing_among_mixed_numbers_of_options_is_no_memory(counts, orders):
    """Fault: letters held against base rates over all questions, where D is said, and true, only
    in those that have a D: a guesser then stands above what its letters alone would score."""
    design = Design(counts=counts, orders=orders, words=False)
    found = [verdict_of(ask(Model(), design, seed=700 + number)) for number in range(8)]
    assert sum(verdict.is_remembered for verdict in found) <= 1
    # Said wherever it is an option, right as often as it is true: no knowledge either.
    found = [verdict_of(ask(Model(letter=2), design, seed=720 + number)) for number in range(8)]
    assert sum(verdict.is_remembered for verdict in found) <= 1


def test_without_other_orders_or_words():
    """Fault: readings nobody asked for counted as known or unknown, or a word that needs them."""
    bare = Design(truths=SKEWED, orders=False, words=False)
    knows = verdict_of(ask(Model(0.9), bare, seed=1))
    # In one order mentions cannot be told from a letter's base rate.
    assert [test.reading for test in knows.tests] == ["accuracy"]
    assert knows.word == "remembered"
    # Nothing shows what is beneath, and so it is not said.
    assert verdict_of(ask(Model(0.9, says="junk"), bare, seed=2)).why.endswith("cannot be read")
    ignorant = verdict_of(ask(Model(), bare, seed=3))
    assert ignorant.why == "none of these stands above chance: accuracy"
    turned = verdict_of(ask(Model(0.9, letter=1), replace(bare, orders=True), seed=4))
    assert [t.reading for t in turned.tests] == ["accuracy", "rotated_accuracy", "mentions"]
    assert turned.is_remembered
    words = verdict_of(ask(Model(0.9, letter=1), replace(bare, words=True), seed=5))
    assert "rotated_accuracy" not in {test.reading for test in words.tests}
    assert (words.word, words.is_remembered) == ("one letter", True)


def test_words_alone_have_a_word_too():
    """Fault: an error where no question was asked with its options."""
    answers = [one for one in predict(Model(0.9), SMALL, seed=1) if one.asked_as == "words"]
    found = verdict_of(by_question(answers, judged(answers)))
    assert found.is_remembered
    assert "words_accuracy" in found.why


def test_a_question_asked_in_words_alone_spoils_no_other_reading():
    """Fault: what was not asked (NaN) spreads over all questions, and into the correction."""
    answers = predict(Model(0.0, 0.9, says="mention"), SMALL, seed=1)
    answers = [one for one in answers if one.question_id != "q0003" or one.asked_as == "words"]
    mentions = verdict_of(by_question(answers, judged(answers))).tests[-1]
    assert mentions.reading == "mentions"
    assert 0 < mentions.chance < 0.3
    assert 0 < mentions.p_above <= 1


# --- the rules by hand


def test_the_correction_is_holms_over_all_methods_and_readings():
    """Fault: methods corrected apart, readings apart, or both sides in one family."""

    def test(above, below):
        return verdicts.ReadingTest("accuracy", None, 0.25, above, below)

    found = verdicts.correct_tests(
        {"a": [test(0.01, 0.9), test(0.04, 0.6)], "b": [test(0.02, 0.5), test(None, None)]}
    )
    assert [one.p_above for one in found["a"]] == pytest.approx([0.03, 0.04])
    assert found["b"][0].p_above == pytest.approx(0.04)
    assert found["b"][1].p_above is None
    assert [one.p_below for one in found["a"]] == [1.0, 1.0]
    assert found["b"][0].p_below == 1.0


def test_half_of_the_answers_unread_is_the_bound_for_broken():
    """Fault: refusals, or questions instead of answers, counted as unread."""

    def people(kinds):
        return [
            person_score(f"p{place}", number, verdict=kind)
            for place in range(12)
            for number, kind in enumerate(kinds)
        ]

    assert verdict_of(people(["unparsable", "wrong"])).word == "output broken"
    assert verdict_of(people(["unparsable", "wrong", "wrong"])).word != "output broken"
    assert verdict_of(people(["refused", "refused", "wrong"])).word != "output broken"


def test_the_shortcut_of_the_simulation_scores_as_the_scorer_does():
    """Fault: simulated answers judged by other rules than real ones."""
    for case in CASES.values():
        noisy = replace(case.model, noise=0.1)
        answers = predict(noisy, Design(people=4, each=2, counts=(2, 3, 4)), seed=1)
        assert judged(answers) == score_all(answers)
