"""Rows of each request's people, and sequences held against all of them forgotten at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pulse_unlearn.evaluation.metrics import LATENT, request_measures
from pulse_unlearn.pipeline.findings import Evidence, sequences_against_one_shot
from pulse_unlearn.pipeline.results import (
    collect_flags,
    compute_results,
    compute_verdicts,
    request_sets,
)
from pulse_unlearn.records import PLAIN
from pulse_unlearn.scenarios import ScoreStage, build_plan
from synthetic_scores import people_scores, person_score
from test_scenarios import ROSTER, make

SMALL = (
    "methods={ga: {}, npo: {}}",
    "finetune.individuals=40",
    "scenarios={finetuned: {forget: 20, retain: 20}, unseen: {celebrities: 0}, "
    "sustainability: {forget: 20, retain: 20, requests: 2}}",
)
OUTCOME = {
    "steps": 12,
    "stopped_by": "max_steps",
    "checks": [],
    "flags": [],
    "skipped_steps": 0,
}


def evidence_of(*more, known=lambda stage, number: True, outcome=lambda stage: OUTCOME):
    """A run of invented answers: `known` says whether a model knows person number so and so."""
    plan = build_plan(make(*SMALL, *more), ROSTER)

    def scores_of(name):
        stage = plan.stage(name)
        assert isinstance(stage, ScoreStage)
        people = dict.fromkeys(one for group in stage.ask for one in group.ids)
        found = [
            person_score(person, 0, right=known(name, number), modality=modality)
            for number, person in enumerate(people)
            for modality in ("multimodal", "text_only")
        ]
        general = [person_score("", k, right=known(name, k)) for k in range(40)]
        return found + (general if stage.general else [])

    return Evidence(plan, scores_of, outcome, lambda group: group.ids, {}, {})


def test_each_request_of_several_has_its_own_accuracy():
    scores = people_scores([5, 0, 2], [5, 0, 4])
    rows = request_measures(scores, request_sets({"requests": [("p000", "p001"), ("p002",)]}))
    found = {(row.set, row.measure): row.value for row in rows}
    assert {row.modality for row in rows} == {"all"}
    assert found["request:1", "accuracy"] == 0.5
    assert found["request:2", LATENT] == pytest.approx(0.6)
    assert set(found) == {(f"request:{k}", m) for k in (1, 2) for m in ("accuracy", LATENT)}
    assert request_sets({"requests": [("p000", "p001", "p002")]}) == {}


def test_rows_of_requests_stand_before_and_after_each_and_under_no_attack():
    evidence = evidence_of("evaluations={retain_model: {}, adapter_off: {}}")
    rows = compute_results(evidence, compute_verdicts(evidence))
    found = {
        (one.cell.scenario, one.cell.request, one.cell.condition)
        for one in rows
        if one.measurement.set == "request:2"
    }
    sequence = {("sustainability", request, PLAIN) for request in (0, 1, 2)}
    assert found == sequence | {("sustainability", 0, "retain_model")}


def test_a_sequence_is_paired_with_the_same_people_forgotten_at_once():
    """Mutation: at once minus sequence."""

    def known(stage, number):
        left = {"sustainability/ga/request2": 5, "finetuned/ga": 10}
        return next((number < n for name, n in left.items() if name in stage), True)

    found = sequences_against_one_shot(evidence_of(known=known))
    gaps = {
        (one.set, one.measure, one.contrast.label): one.contrast.by_seed[0].value
        for one in found
        if one.measure == "accuracy"  # no other reading was asked
    }
    assert gaps["forget", "accuracy", "ga - ga at once"] == pytest.approx(-0.25)
    assert gaps["general", "accuracy", "ga - ga at once"] == pytest.approx(-0.125)
    assert gaps["forget", "accuracy", "npo - npo at once"] == 0.0
    assert {one.scenario for one in found} == {"sustainability"}
    assert {one.set for one in found} == {"forget", "retain", "general"}


@pytest.mark.parametrize(
    "other",
    [
        "scenarios.finetuned=null",
        "scenarios.sustainability.requests=1",
        "methods.ga.scenarios=[sustainability]",
    ],
)
def test_nothing_is_paired_where_nothing_was_forgotten_at_once(other):
    found = sequences_against_one_shot(evidence_of(other, "methods.npo.scenarios=[finetuned]"))
    assert found == []


def test_another_model_or_other_people_are_not_the_same_thing_at_once():
    evidence = evidence_of()
    plan = evidence.plan
    for change in ({"target": ()}, {"forget": plan.operations[0].retain}):
        others = [
            replace(one, **change) if one.cell.scenario == "finetuned" else one
            for one in plan.operations
        ]
        changed = replace(evidence, plan=replace(plan, operations=tuple(others)))
        assert sequences_against_one_shot(changed) == []


@pytest.mark.parametrize(("steps", "flagged"), [(12, False), (11, True)])
def test_a_way_that_ends_elsewhere_when_gone_again_is_flagged(steps, flagged):
    def outcome(stage):
        return {**OUTCOME, "steps": steps if stage.endswith("/trajectory") else 12}

    evidence = evidence_of("evaluations={trajectory: {steps: [2]}}", outcome=outcome)
    flags = collect_flags(evidence, compute_verdicts(evidence))
    strayed = {one.cell.request for one in flags if one.flag == "trajectory_strayed"}
    assert strayed == ({1, 2} if flagged else set())
