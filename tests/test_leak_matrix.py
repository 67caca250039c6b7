"""Unlearned with the image or by name, asked with both: batches, fingerprints, the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pulse_unlearn.config import load_experiment
from pulse_unlearn.data.examples import circular, in_words
from pulse_unlearn.data.facts import attributes_of, of_modality
from pulse_unlearn.errors import ConfigError
from pulse_unlearn.evaluation.metrics import attribute_measures, people_measures
from pulse_unlearn.evaluation.scoring import by_question
from pulse_unlearn.pipeline import inputs as pipeline_inputs
from pulse_unlearn.pipeline import runners, stage_context
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.pipeline.stage_context import StageContext
from pulse_unlearn.records import Cell, Measurement, Result
from pulse_unlearn.registries import schemas
from pulse_unlearn.report.estimates import Numbers
from pulse_unlearn.report.leaks import leak_tables, shown_with
from pulse_unlearn.scenarios import UnlearnStage
from simulated_models import Design, Model, answered, ask, judged

TWO = (
    "methods={ga_klr: {}, seen: {method: ga_klr, unlearn: {modalities: multimodal}}, "
    "named: {method: ga_klr, unlearn: {modalities: text_only}}}"
)


@pytest.fixture(scope="module")
def inputs():
    return read_inputs(
        load_experiment("smoke", overrides=[TWO, "scenarios.pretrained=null"], schemas=schemas())
    )


def unlearning(inputs, label):
    return next(
        one
        for one in inputs.plan.stages
        if isinstance(one, UnlearnStage) and one.cell and one.cell.method == label
    )


class Reached(Exception):
    """As far as a stage is carried out here."""


@pytest.mark.parametrize(
    ("label", "asked"),
    [
        ("ga_klr", {"multimodal", "text_only"}),
        ("seen", {"multimodal"}),
        ("named", {"text_only"}),
    ],
)
def test_forget_batches_and_stop_rule_show_one_modality_and_retain_batches_both(
    inputs, monkeypatch, label, asked
):
    # Fails where the runner takes people as they are.
    shown, stopping, epochs_of = [], [], stage_context.people_epochs

    def recorded(*given):
        shown.append(epochs_of(*given)(0))
        return epochs_of(*given)

    def reached(_, people, _count):
        stopping.extend(people)
        raise Reached

    monkeypatch.setattr(stage_context, "people_epochs", recorded)
    monkeypatch.setattr(runners, "held_out", reached)
    context = StageContext(
        inputs,
        unlearning(inputs, label),
        Path(),
        folder_of=lambda _: Path(),
        resolve=lambda group: group.ids,
        progress=None,
        stop=None,
        cache=None,
    )
    with pytest.raises(Reached):
        runners.run_unlearn(context)
    forget, retain = shown
    assert {one.modality for one in forget} == asked
    assert {one.picture is None for one in forget} == {kind == "text_only" for kind in asked}
    assert {one.modality for one in retain} == {"multimodal", "text_only"}
    assert {one.modality for person in stopping for one in person.questions} == asked


def test_short_answers_of_the_other_modality_go_too(inputs):
    person = next(iter(inputs.people.values()))
    seen = of_modality(person, "multimodal")
    assert {one.modality for one in (*seen.questions, *seen.short_answers)} == {"multimodal"}
    assert of_modality(person, "both") is person


def test_what_shows_both_is_the_stage_it_was_before_there_was_a_setting(inputs):
    plain, seen = (unlearning(inputs, label) for label in ("ga_klr", "seen"))
    made_of = plain.ingredients(inputs.experiment)["settings"]
    assert "modalities" not in made_of
    assert "forms" in made_of
    assert seen.ingredients(inputs.experiment)["settings"] == made_of | {"modalities": "multimodal"}


def test_a_modality_nobody_is_asked_is_refused(inputs, monkeypatch):
    everyone = datasets_without_names(pipeline_inputs.datasets.load_people)
    monkeypatch.setattr(pipeline_inputs.datasets, "load_people", everyone)
    with pytest.raises(ConfigError, match=r"methods\.named\.unlearn\.modalities"):
        read_inputs(inputs.experiment)


def datasets_without_names(load):
    def loaded(*given):
        found = load(*given)
        people = tuple(of_modality(one, "multimodal") for one in found.individuals)
        return replace(found, individuals=people)

    return loaded


def test_questions_have_the_attribute_they_ask_after_whoever_is_asked(inputs):
    found = attributes_of(inputs.people.values(), asked_of=10)
    assert found["f001/multimodal/1"] == found["f001/text_only/1"] == found["f002/text_only/1"]
    assert len({*found.values()}) == 5
    assert attributes_of(inputs.people.values(), asked_of=1000) == {}


def test_readings_of_an_attribute_are_those_of_its_questions():
    answers = ask(Model(knows=1.0), Design(people=20, each=1), seed=3)
    answers += tuple(
        replace(one, question_id=f"x{one.question_id}")
        for one in ask(Model(), Design(people=20, each=1), seed=4)
    )
    attributes = {one.question_id: "job" for one in answers if not one.question_id.startswith("x")}
    rows = attribute_measures(answers, of_set="forget", attributes=attributes)
    assert {(one.measure, one.modality) for one in rows} == {
        (f"{measure}:job", modality)
        for measure in ("accuracy", "latent_accuracy")
        for modality in ("multimodal", "text_only")
    }
    assert all(one.questions == 20 and one.value and one.value > 0.9 for one in rows)


@pytest.mark.parametrize("hides", ["multimodal", "text_only"])
def test_what_one_modality_hides_the_other_one_gives_away(inputs, hides):
    # The positive control: forgotten in one modality alone, at chance there and known in the other.
    people = [inputs.people[f"f{number:03d}"] for number in range(1, 21)]
    questions = [one for person in people for one in person.questions]
    examples = [*circular(questions, profile="short"), *in_words(questions, profile="short")]

    def read(knows):
        predictions = answered(examples, knows, seed=1)
        answers = by_question(predictions, judged(predictions))
        rows = people_measures(answers, sets={"forget": frozenset(one.id for one in people)})
        return {one.modality: one.value for one in rows if one.measure == "latent_accuracy"}

    found, never = read(lambda one: one.modality != hides), read(lambda _: False)
    [other] = {"multimodal", "text_only"} - {hides}
    assert found[hides] == never[hides] < 0.45
    assert found[other] - found[hides] >= 0.3
    assert abs(never[other] - never[hides]) < 0.15


def rows_of(method, values, *, request=1, condition="plain", part=""):
    """Latent and strict percent, with the image and by name."""
    cell = Cell("finetuned", method, "projector+llm", 0, request, condition)
    names = [
        (modality, measure + part)
        for modality in ("multimodal", "text_only")
        for measure in ("latent_accuracy", "accuracy")
    ]
    return [
        Result(cell, Measurement("forget", modality, measure, value / 100, None, None, 50, 10))
        for (modality, measure), value in zip(names, values, strict=True)
    ]


MODALITIES = {"ga": "both", "ga_image": "multimodal", "ga_name": "text_only", "npo": "both"}
LABELS = {"ga_image": "ga", "ga_name": "ga"}


def test_the_matrix_has_a_row_for_what_each_was_unlearned_with():
    numbers = Numbers(
        [
            *rows_of("ga", (99, 98, 97, 96), request=0),
            *rows_of("ga", (25, 24, 26, 23), request=0, condition="retain_model"),
            *rows_of("ga", (40, 30, 41, 31)),
            *rows_of("ga_image", (42, 20, 88, 77)),
            *rows_of("ga_image", (12, 11, 14, 13), part=":what does _ do"),
            *rows_of("ga_name", (91, 80, 43, 21)),
            *rows_of("npo", (50, 50, 50, 50)),
        ],
        LABELS,
    )
    matrix, parts = leak_tables(numbers, MODALITIES)
    assert matrix.columns == ("asked with image", "asked by name")
    told = {
        (row.heads[1], row.heads[3]): [(cell.value, *cell.beside) for cell in row.cells]
        for row in matrix.rows
    }
    assert told == {
        ("before", ""): [("99.0", "strict 98.0"), ("97.0", "strict 96.0")],
        ("retain model", ""): [("25.0", "strict 24.0"), ("26.0", "strict 23.0")],
        ("GA", "both"): [("40.0", "strict 30.0"), ("41.0", "strict 31.0")],
        ("ga_image", "the image"): [("42.0", "strict 20.0"), ("88.0", "strict 77.0")],
        ("ga_name", "the name"): [("91.0", "strict 80.0"), ("43.0", "strict 21.0")],
    }
    [row] = parts.rows
    assert (row.heads[1], row.heads[-1]) == ("ga_image", "what does … do")
    assert [cell.value for cell in row.cells] == ["12.0", "14.0"]


def test_there_is_no_matrix_where_all_are_shown_both():
    numbers = Numbers(rows_of("ga", (40, 30, 41, 31)), LABELS)
    assert leak_tables(numbers, {"ga": "both"}) == ()
    assert leak_tables(numbers, {}) == ()


def test_what_methods_were_shown_is_read_from_the_experiment():
    methods = {"a": {"unlearn": {"modalities": "text_only"}}, "b": {"unlearn": {}}, "c": None}
    assert shown_with({"methods": methods}) == {"a": "text_only", "b": "both", "c": "both"}
    assert shown_with({}) == {}
