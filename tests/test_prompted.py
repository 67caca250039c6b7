"""Prompt attacks: what is asked, of whom, and that they bring back what hides in just that way."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

import tiny_models as tiny
from pipeline_cases import result_rows
from pulse_unlearn.config import load_experiment
from pulse_unlearn.data.images import decode, scored_pictures
from pulse_unlearn.evaluation.metrics import people_measures
from pulse_unlearn.evaluation.scoring import by_question
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.pipeline.asked import stage_examples
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.records import PROMPTINGS, Cell, Measurement, Result
from pulse_unlearn.registries import schemas
from pulse_unlearn.report.estimates import Numbers
from pulse_unlearn.report.hidden import prompted_table, rounded_table
from pulse_unlearn.scenarios import ScoreStage, build_plan
from simulated_models import answered, judged
from test_scenarios import ROSTER, make, plan

CHOSEN = (
    "methods={ga: {}}",
    "finetune.individuals=40",
    "scenarios={finetuned: {forget: 20, retain: 20}, unseen: {celebrities: 2}}",
    "evaluations={retain_model: {}, prompted: {shots: 3}}",
)


@pytest.fixture(scope="module")
def inputs():
    return read_inputs(load_experiment("smoke", overrides=CHOSEN, schemas=schemas()))


@pytest.fixture(scope="module")
def asked(inputs):
    """Way of asking, None for plainly -> the stage of the unlearned model and its examples."""
    stages = [
        one
        for one in inputs.plan.stages
        if isinstance(one, ScoreStage) and one.prompted and "retain-model" not in one.name
    ]
    stages.append(replace(stages[0], prompted=None, shots=0))
    return {one.prompted: stage_examples(inputs, one, lambda group: group.ids) for one in stages}


@pytest.fixture(scope="module")
def forgotten(inputs):
    return frozenset(inputs.plan.operations[0].forget.ids)


def test_every_way_asks_the_same_questions_about_the_forgotten_alone(asked, forgotten):
    assert {*asked} == {*PROMPTINGS, None}
    plain = [(one.example_id, one.answer) for one in asked[None]]
    assert all([(one.example_id, one.answer) for one in of] == plain for of in asked.values())
    assert {one.individual for one in asked["few_shot"]} == forgotten
    assert all(asked[way] != asked[None] for way in PROMPTINGS)


def test_solved_questions_are_about_others_and_never_about_the_forgotten(inputs, asked, forgotten):
    # Fails if everybody is drawn on: each of the twenty is then in some of 600 shots.
    names = {inputs.people[one].name for one in forgotten}
    others = {one.name for one in inputs.people.values() if one.id not in forgotten}
    for plain, one in zip(asked[None], asked["few_shot"], strict=True):
        assert one.prompt.endswith(plain.prompt)
        ahead = one.prompt.removesuffix(plain.prompt)
        solved = ahead.removesuffix("\n\n").split("\n\n")
        assert len(solved) == 3
        assert not any(name in ahead for name in names)
        assert all(any(name in text for name in others) for text in solved)
        letters = {text.rpartition("\n")[2] for text in solved} <= {"A", "B", "C", "D"}
        assert letters == (one.asked_as == "options")


def test_all_orders_of_a_question_have_the_same_solved_ones_in_front(asked):
    shown = [one for one in asked["few_shot"] if one.asked_as == "options"]
    ahead = {(one.question_id, one.prompt.rpartition("\n\n")[0]) for one in shown}
    assert len(ahead) == len({one.question_id for one in shown}) < len(shown)


def test_a_blank_picture_is_uniform_and_of_the_same_size_also_beside_names(asked, inputs):
    for one in asked["blank_picture"][::40]:
        [own] = scored_pictures(inputs.people[one.individual]).values()
        image = decode(one.picture)
        assert image.size == decode(own).size
        assert len(image.getcolors()) == 1


def test_pictures_are_swapped_among_the_forgotten_and_names_beside_a_stranger(
    asked, inputs, forgotten
):
    whose = {
        digest: person.id for person in inputs.people.values() for digest in scored_pictures(person)
    }
    for one in asked["swapped_picture"]:
        shown = whose[one.picture.digest]
        assert shown != one.individual
        assert (shown in forgotten) == (one.modality == "multimodal")
        assert inputs.people[shown].group == inputs.people[one.individual].group


def test_paraphrases_keep_the_options_and_change_the_words(asked):
    for way in ("paraphrase_memory", "paraphrase_quiz"):
        for plain, one in zip(asked[None], asked[way], strict=True):
            question = plain.prompt.partition("\n")[0]
            assert question in one.prompt
            assert one.prompt.partition("\n")[0] != question
            assert one.prompt.partition("\n")[2] == plain.prompt.partition("\n")[2]
            assert one.picture == plain.picture


HIDES = {
    "few_shot": lambda one: "\n\n" in one.prompt,
    "answer_begun": lambda one: bool(one.begun),
    "paraphrase_memory": lambda one: "from memory" in one.prompt,
    "paraphrase_quiz": lambda one: "A quiz asks" in one.prompt,
    "blank_picture": lambda one: one.modality == "text_only" and one.picture is not None,
    "swapped_picture": lambda one: one.modality == "text_only" and one.picture is not None,
}
"""Way -> when a model that hides in just this way says what it knows."""


def latent(examples, knows, forgotten, *, seed):
    predictions = answered(examples, knows, seed=seed)
    rows = people_measures(
        by_question(predictions, judged(predictions)), sets={"forget": forgotten}
    )
    wanted = ("all", "latent_accuracy")
    return next(one.value for one in rows if (one.modality, one.measure) == wanted)


@pytest.mark.parametrize("way", PROMPTINGS)
def test_what_hides_in_this_way_comes_back_and_what_was_never_known_does_not(way, asked, forgotten):
    # The positive control of each attack; fails where the way of asking changes nothing.
    plainly, found = (latent(asked[how], HIDES[way], forgotten, seed=1) for how in (None, way))
    before, after = (latent(asked[how], lambda _: False, forgotten, seed=2) for how in (None, way))
    assert plainly < 0.4
    assert found - plainly >= 0.3
    assert abs(after - before) < 0.1


def test_every_last_model_and_the_retain_model_are_asked_in_each_way():
    protocol = plan("evaluations={retain_model: {}, prompted: {ways: [few_shot, blank_picture]}}")
    ways = {"few_shot", "blank_picture"}
    found = [one for one in protocol.evaluations if one.cell.condition.partition("+")[2] in ways]
    found += [one for one in protocol.evaluations if one.cell.condition in ways]
    before = [one for one in found if one.cell.request == 0]
    assert {one.cell.condition for one in before} == ways
    for one in before:
        assert protocol.stage(one.scores).chain == one.operation.target
        assert protocol.stage(one.scores).prompted == one.cell.condition
    found = [one for one in found if one.cell.request]
    conditions = {one.cell.condition for one in found if one.cell.scenario == "sustainability"}
    assert conditions == ways | {f"retain_model+{way}" for way in ways}
    for one in found:
        stage = protocol.stage(one.scores)
        assert stage.prompted in one.cell.condition
        assert stage.ask == (one.operation.forget,)
        assert stage.shots == (3 if stage.prompted == "few_shot" else 0)
        assert not stage.general
        held = one.cell.scenario != "pretrained" and one.cell.condition in ways
        assert ("retain-model" in one.never_knew) == held
        assert one.operation.cell.request == (5 if one.cell.scenario == "sustainability" else 1)


def test_a_served_system_is_asked_as_it_is_served():
    experiment = make("evaluations={prompted: {ways: [answer_begun]}}")
    served = build_plan(experiment, ROSTER, serving={"ga"})
    rows = [one for one in served.evaluations if one.cell.condition == "answer_begun"]
    own = [one for one in rows if one.cell.method == "ga" and one.cell.request]
    assert own
    for one in own:
        stage, plainly = served.stage(one.scores), served.stage(one.operation.after)
        assert stage.served == plainly.served != ()
        assert stage.chain == plainly.chain


def test_stages_that_ask_plainly_are_those_they_were(inputs):
    stages = [one for one in inputs.plan.stages if isinstance(one, ScoreStage)]
    made_of = {one.prompted: one.ingredients(inputs.experiment) for one in stages}
    assert not {"prompted", "shots"} & {*made_of[None]}
    assert made_of["few_shot"]["shots"] == 3
    fingerprints = [inputs.keys[one.name].fingerprint for one in stages]
    assert len({*fingerprints}) == len(fingerprints)


def test_an_answer_that_has_begun_is_read_behind_its_beginning():
    encoder = Encoder(tiny.processor(), tiny.LLAVA)
    plain = tiny.example(0, shown=True)
    begun = replace(plain, begun="The answer is")
    ahead = encoder.prompt(plain) + encoder.chat_template.prefix
    assert encoder.prompt(begun) == f"{ahead}The answer is"
    labels = encoder.answers([begun], tokens="text").labels[0].tolist()
    [line] = encoder.lines([begun], tokens="text")
    assert tuple(labels) == line.answer
    place = [option.letter for option in plain.options].index(plain.answer)
    assert encoder.letters(begun)[place] == line.answer
    assert encoder.lines([plain], tokens="text") != [line]


def rows_of(method, condition, image, name, *, request=1):
    cell = Cell("finetuned", method, "projector+llm", 0, request, condition)
    both = (("multimodal", image), ("text_only", name), ("all", (image + name) / 2))
    return [
        Result(cell, Measurement("forget", kind, "latent_accuracy", value, None, None, 50, 10))
        for kind, value in both
    ]


def test_the_table_holds_each_way_against_the_retain_model():
    numbers = Numbers(
        [
            *rows_of("ga", "plain", 0.3, 0.2),
            *rows_of("ga", "few_shot", 0.8, 0.6),
            *rows_of("ga", "blank_picture", 0.2, 0.4),
            *rows_of("ga", "plain", 0.9, 0.8, request=0),
            *rows_of("ga", "few_shot", 0.7, 0.6, request=0),
            *rows_of("ga", "retain_model", 0.24, 0.26, request=0),
            *rows_of("ga", "retain_model+few_shot", 0.28, 0.22),
            *rows_of("ga", "int8", 0.3, 0.2),
        ]
    )
    table = prompted_table(numbers)
    assert table.columns == ("plainly", "few-shot", "blank picture")
    told = {row.heads[1]: [(cell.value, *cell.beside) for cell in row.cells] for row in table.rows}
    assert told == {
        "before": [
            ("85.0", "image 90.0", "name 80.0"),
            ("65.0", "image 70.0", "name 60.0"),
            ("–",),
        ],
        "retain model": [
            ("25.0", "image 24.0", "name 26.0"),
            ("25.0", "image 28.0", "name 22.0"),
            ("–",),
        ],
        "GA": [
            ("25.0", "image 30.0", "name 20.0"),
            ("70.0", "image 80.0", "name 60.0"),
            ("30.0", "image 20.0", "name 40.0"),
        ],
    }
    assert [row.heads[1] for row in rounded_table(numbers).rows] == ["GA"]
    assert prompted_table(Numbers(rows_of("ga", "plain", 0.3, 0.2))) is None


@pytest.mark.slow  # twenty more stages of a run, each of which reads the model
def test_a_finished_run_is_asked_again_in_other_ways_and_about_strangers(bench, tmp_path):
    run = bench.copied(tmp_path)
    ways = "[few_shot, answer_begun, paraphrase_quiz, blank_picture, swapped_picture]"
    more = f"evaluations={{prompted: {{ways: {ways}, shots: 2}}, membership: {{people: 3}}}}"
    ended = bench.run(tmp_path, "--set", more)
    assert ended.code == 0, ended.output
    rows = [row for row in result_rows(run) if row["set"] == "forget" and row["modality"] == "all"]
    found = {
        (row["scenario"], row["request"], row["condition"]): float(row["value"])
        for row in rows
        if row["measure"] == "correct_probability"
        and row["request"] != "0"
        and "retain_model" not in row["condition"]
    }
    for cell in (("finetuned", "1"), ("pretrained", "1"), ("sustainability", "2")):
        values = sorted(value for key, value in found.items() if key[:2] == cell)
        assert len(values) == 6
        assert all(one < other for one, other in pairwise(values))
    told = {
        (row["scenario"], row["request"]): row["value"]
        for row in rows
        if row["measure"] == "membership_auc"
    }
    assert {scenario for scenario, _ in told} == {"pretrained"}
    assert {request for _, request in told} == {"0", "1"}
    assert all(0 <= float(value) <= 1 for value in told.values())
