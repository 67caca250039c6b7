"""Plans are pure data: who is in which set, what rests on what, what is shared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pulse_unlearn.config import Scenario as ScenarioSettings
from pulse_unlearn.config import parse_experiment
from pulse_unlearn.errors import ConfigError
from pulse_unlearn.records import NamedRequest
from pulse_unlearn.registries import schemas
from pulse_unlearn.scenarios import (
    SCENARIOS,
    FinetuneStage,
    Roster,
    Scenario,
    ScoreStage,
    UnlearnStage,
    build_plan,
    derive_seed,
)
from pulse_unlearn.scenarios.planner import Planner

ROSTER = Roster(
    tuple(f"f{number:03d}" for number in range(120)),
    tuple(f"c{number:03d}" for number in range(153)),
)
PARTS = ("people", "training", "order")
PROTOCOL = """
name: protocol
methods:
  ga: {}
  ga_klr: {}
  npo: {}
  ga_llm: {method: ga, scenarios: [finetuned], unlearn: {scope: llm}}
scenarios:
  finetuned: {forget: 50, retain: 50}
  pretrained: {forget: 20, retain: 25}
  sustainability: {forget: 50, retain: 50, requests: 5}
"""


def make(*overrides):
    return parse_experiment(PROTOCOL, where="p.yaml", overrides=overrides, schemas=schemas())


def plan(*overrides, roster=ROSTER):
    return build_plan(make(*overrides), roster)


def operations(of_plan, scenario, method="ga"):
    return [
        operation
        for operation in of_plan.operations
        if (operation.cell.scenario, operation.cell.method) == (scenario, method)
    ]


def test_table_2_of_the_paper():
    protocol = plan()
    (finetuned,) = operations(protocol, "finetuned")
    assert (len(finetuned.forget.ids), len(finetuned.retain.ids)) == (50, 50)
    sustained = operations(protocol, "sustainability")
    assert len(sustained) == 5
    assert [len(request.ids) for request in sustained[0].requests] == [10] * 5
    (pretrained,) = operations(protocol, "pretrained")
    select = protocol.stage(pretrained.forget.selection)
    sizes = (select.settings.forget, select.settings.retain, len(select.candidates.ids))
    assert sizes == (20, 25, 153)


def test_sets_are_disjoint_and_requests_partition_the_forget_set():
    for operation in plan().operations:
        if operation.cell.scenario == "pretrained":
            continue
        forget, retain = set(operation.forget.ids), set(operation.retain.ids)
        assert not forget & retain
        requested = [identity for request in operation.requests for identity in request.ids]
        assert sorted(requested) == sorted(forget)
        assert len(set(requested)) == len(requested)


def test_one_fine_tuned_model_serves_all_methods_and_two_scenarios():
    stages = plan().stages
    assert sum(stage.kind == "finetune" for stage in stages) == 1
    assert sum(stage.name == "seed0/target/score" for stage in stages) == 1
    assert len({stage.name for stage in stages}) == len(stages)


def test_parents_come_before_their_children():
    seen = set()
    for stage in plan("seeds=[0,1]").stages:
        assert set(stage.parents) <= seen
        seen.add(stage.name)


def test_each_request_stands_on_the_ones_before():
    protocol = plan()
    unlearned = [operation.unlearn for operation in operations(protocol, "sustainability")]
    last = protocol.stage(unlearned[-1])
    assert last.chain == ("seed0/finetune", *unlearned[:-1])
    assert last.reference_depth == 1


def retain_of(of_plan, scenario):
    return [of_plan.stage(op.unlearn).retain for op in operations(of_plan, scenario)]


def test_retain_batches_ask_whom_the_experiment_says():
    (shown,) = retain_of(plan(), "finetuned")
    assert shown == operations(plan(), "finetuned")[0].retain
    for scenario in ("finetuned", "pretrained", "sustainability"):
        for group in retain_of(plan("unlearn.retain=other_known"), scenario):
            assert (group.selection, group.part) == ("seed0/select", "others")
        for data in ("general", "none"):
            chosen = plan(f"unlearn.retain={data}")
            assert {group.ids for group in retain_of(chosen, scenario)} == {()}
    alone = plan("unlearn.retain=other_known", "scenarios.pretrained=null")
    (operation,) = operations(alone, "finetuned")
    ((_, unseen),) = operation.unseen
    (others,) = retain_of(alone, "finetuned")
    assert sorted(others.ids + unseen.ids) == sorted(ROSTER.celebrities)
    both = plan("unlearn.retain=all_known")
    for scenario in ("finetuned", "pretrained", "sustainability"):
        assert retain_of(both, scenario) == retain_of(plan(), scenario)
        shares = [both.stage(one.unlearn).others for one in operations(both, scenario)]
        assert {(one.selection, one.part) for one in shares} == {("seed0/select", "others")}


def test_other_people_have_to_be_known():
    nobody = Roster(ROSTER.fictional, ())
    with pytest.raises(ConfigError, match="knows nobody who is not"):
        plan("unlearn.retain=other_known", "scenarios.pretrained=null", roster=nobody)
    few = ("scenarios.pretrained.candidates=47", "scenarios.unseen.celebrities=2")
    with pytest.raises(ConfigError, match="knows nobody who is not"):
        plan("unlearn.retain=other_known", *few)


def test_forget_batches_may_hold_the_people_of_earlier_requests():
    alone, again = plan(), plan("unlearn.forget=requests_so_far")
    asked = [
        [of.stage(one.unlearn).forget.ids for one in operations(of, "sustainability")]
        for of in (alone, again)
    ]
    so_far = [sum(asked[0][: number + 1], ()) for number in range(5)]
    assert asked[1] == so_far
    # The chosen of a single request are whoever they are chosen to be.
    pretrained = [operations(of, "pretrained")[0] for of in (alone, again)]
    assert alone.stage(pretrained[0].unlearn).forget == again.stage(pretrained[1].unlearn).forget


def test_steps_may_grow_with_the_requests_that_forget_batches_hold():
    """Mutation: `lasting` looks at the place alone."""

    def steps(*changes):
        of = plan("unlearn.stop.max_steps=7", *changes)
        found = [of.stage(one.unlearn) for one in operations(of, "sustainability")]
        assert {one.settings.stop.max_steps for one in map(of.stage, singles(of))} == {7}
        return [one.settings.stop.max_steps for one in found]

    def singles(of):
        return [operations(of, name)[0].unlearn for name in ("finetuned", "pretrained")]

    grow = "unlearn.stop.steps_of=request"
    assert steps("unlearn.forget=requests_so_far", grow) == [7, 14, 21, 28, 35]
    assert steps("unlearn.forget=requests_so_far") == steps(grow) == [7] * 5


def test_the_reference_can_be_the_model_before_this_request():
    protocol = plan("unlearn.reference=previous_request")
    last = operations(protocol, "sustainability")[-1]
    stage = protocol.stage(last.unlearn)
    assert stage.reference_depth == len(stage.chain) == 5


def test_a_continued_adapter_is_trained_on_not_stacked():
    protocol = plan("unlearn.adapter=continued")
    second = operations(protocol, "sustainability")[1]
    stage = protocol.stage(second.unlearn)
    assert stage.chain == ("seed0/finetune",)
    assert stage.start_from.endswith("request1/unlearn")
    assert protocol.stage(second.after).chain == ("seed0/finetune", second.unlearn)


def test_seeds_draw_other_people_and_the_same_seed_the_same():
    assert plan("seeds=[0]") == plan("seeds=[0]")
    (first,) = operations(plan("seeds=[0]"), "finetuned")
    (second,) = operations(plan("seeds=[1]"), "finetuned")
    assert set(first.forget.ids) != set(second.forget.ids)


def test_people_training_and_order_vary_apart():
    """A spread between seeds can only be named if one thing at a time may differ."""
    alone = {part: plan("seeds=[3,4]", f"vary=[{part}]") for part in PARTS}
    together = plan("seeds=[3,4]")
    for part, of_plan in (*alone.items(), (None, together)):
        stages = [of_plan.stage(f"seed{seed}/finetune") for seed in (3, 4)]
        differs = {
            "people": stages[0].learn != stages[1].learn,
            "training": stages[0].seed != stages[1].seed,
            "order": stages[0].order_seed != stages[1].order_seed,
        }
        assert differs == {one: part in (None, one) for one in PARTS}
        chosen = [of_plan.stage(f"seed{seed}/select").seed for seed in (3, 4)]
        assert (chosen[0] != chosen[1]) == (part in (None, "people"))
    # The first seed's run is the same whatever varies, so that its stages are shared.
    assert len({one.stage("seed3/finetune").seed for one in (*alone.values(), together)}) == 1


def test_requests_come_in_another_order_with_another_seed_if_that_is_to_vary():
    def requests(*varied):
        varying = plan("seeds=[3,4,5]", f"vary=[{', '.join(varied)}]")
        return [one.requests for one in operations(varying, "sustainability")[4::5]]

    first, second, third = requests("training", "requests")
    assert {*first} == {*second} == {*third}
    assert len({first, second, third}) == 3
    assert len({*requests("training")}) == 1
    assert requests("training", "requests")[0] == requests("training")[0]


def test_unseen_people_are_in_no_other_set_and_always_scored():
    protocol = plan("finetune.individuals=110", "scenarios.unseen={celebrities: 30, fictional: 10}")
    for operation in protocol.operations:
        unseen = dict(operation.unseen)
        assert unseen["unseen"].selection == "seed0/select"
        assert unseen["unseen"].part == "unseen"
        asked = protocol.stage(operation.after).ask
        if operation.cell.scenario == "pretrained":
            assert set(unseen) == {"unseen"}
            assert [group.part for group in asked] == ["all"]
            continue
        extra = set(unseen["unseen_fictional"].ids)
        assert len(extra) == 10
        assert not extra & {*operation.forget.ids, *operation.retain.ids}
        assert unseen["unseen"] in asked
        assert unseen["unseen_fictional"] in asked
        unlearn = protocol.stage(operation.unlearn)
        assert not extra & {*unlearn.forget.ids, *unlearn.retain.ids}


def test_without_celebrities_to_choose_among_unseen_ones_are_drawn_or_there_are_none():
    only = "scenarios={finetuned: {forget: 50, retain: 50}, unseen: {celebrities: 30}}"
    (operation, *_) = plan(only).operations
    ((name, group),) = operation.unseen
    assert (name, len(group.ids)) == ("unseen", 30)
    assert set(group.ids) <= set(ROSTER.celebrities)
    base = plan(only).stage("base/score")
    assert set(group.ids) <= {identity for one in base.ask for identity in one.ids}
    nobody = parse_experiment(PROTOCOL, where="p.yaml", overrides=(only,), schemas=schemas())
    alone = build_plan(nobody, Roster(ROSTER.fictional, ()))
    assert alone.operations[0].unseen == ()


def test_the_accuracy_before_is_asked_of_the_target_model_once():
    protocol = plan("unlearn.stop.target_forgetting=0.5")
    sustained = [protocol.stage(one.unlearn) for one in operations(protocol, "sustainability")]
    assert {stage.before for stage in sustained} == {"seed0/target/score-other-view"}
    assert protocol.stage(sustained[0].before).chain == ("seed0/finetune",)
    assert all(stage.before in stage.parents for stage in sustained)
    (pretrained,) = operations(protocol, "pretrained")
    assert protocol.stage(pretrained.unlearn).before == "base/score-other-view"
    assert protocol.stage("base/score-other-view").chain == ()
    assert all(not stage.before for stage in plan().stages if isinstance(stage, UnlearnStage))


def test_derived_seeds_are_pinned():
    """A change here changes every run: it must be meant."""
    assert derive_seed(0, "seed0/finetune") == 2010558540
    assert derive_seed(1, "seed0/finetune") != derive_seed(0, "seed0/finetune")


def test_too_few_people_are_told():
    with pytest.raises(ConfigError, match="not enough individuals"):
        plan("finetune.individuals=130", "scenarios={finetuned: {forget: 65, retain: 65}}")


# --- history, the retain model, attacks, named people


def test_a_request_knows_the_requests_before_it():
    sustained = [one.unlearn for one in operations(plan(), "sustainability")]
    stages = [plan().stage(name) for name in sustained]
    assert [stage.history for stage in stages] == [tuple(sustained[:k]) for k in range(5)]
    assert all(set(stage.history) <= set(stage.parents) for stage in stages)


def conditions(of_plan, *cell):
    return [
        one.cell.condition
        for one in of_plan.evaluations
        if (one.cell.scenario, one.cell.method, one.cell.request) == cell
    ]


def test_the_retain_model_is_taught_all_but_those_to_forget_once_a_seed():
    protocol = plan("evaluations={retain_model: {}}", "seeds=[0,1]")
    for seed in (0, 1):
        target = protocol.stage(f"seed{seed}/finetune")
        retained = protocol.stage(f"seed{seed}/retain-model")
        forget = operations(protocol, "finetuned")[seed].forget
        assert isinstance(retained, FinetuneStage)
        assert set(retained.learn.ids) == {*target.learn.ids} - {*forget.ids}
        assert retained.settings == target.settings
        assert retained.chain == ()
    assert sum(stage.name.endswith("retain-model") for stage in protocol.stages) == 2
    scored = protocol.stage("seed0/retain-model/score")
    assert scored.ask == protocol.stage("seed0/target/score").ask
    for scenario in ("finetuned", "sustainability"):
        assert sorted(conditions(protocol, scenario, "ga", 0)) == [
            *("plain", "plain"),
            *("retain_model", "retain_model"),
        ]
        assert {one.never_knew for one in operations(protocol, scenario)} == {
            "seed0/retain-model/score",
            "seed1/retain-model/score",
        }
    # Nobody can leave out of pre-training whom it taught.
    assert set(conditions(protocol, "pretrained", "ga", 0)) == {"plain"}


def test_each_request_of_a_sequence_may_have_a_retain_model_that_knows_later_people():
    protocol = plan("evaluations={retain_model: {each_request: true}}")
    sequence = operations(protocol, "sustainability")
    target = {*protocol.stage("seed0/finetune").learn.ids}
    for k, operation in enumerate(sequence, start=1):
        named = {one for group in operation.requests[:k] for one in group.ids}
        scored = protocol.stage(operation.never_knew)
        assert isinstance(scored, ScoreStage)
        assert {*protocol.stage(scored.chain[-1]).learn.ids} == target - named
        assert scored.ask == protocol.stage("seed0/target/score").ask
    # The last one lacks all, as that of the single operation does: it is the same model.
    assert sequence[-1].never_knew == operations(protocol, "finetuned")[0].never_knew
    rows = [one for one in protocol.evaluations if one.cell.condition == "retain_model"]
    own = [one for one in rows if one.cell.scenario == "sustainability" and one.cell.request]
    assert [one.scores for one in own] == [one.never_knew for one in sequence]
    starts = {one.scores for one in rows if one.cell.request == 0}
    assert starts == {sequence[-1].never_knew}
    assert not [one for one in rows if one.cell.scenario == "finetuned" and one.cell.request]


def test_a_scenario_may_name_a_retain_model_that_somebody_else_made():
    protocol = plan(
        "evaluations={retain_model: {}, relearning: {steps: [2]}}",
        "scenarios.pretrained.retain_model=elsewhere",
        "scenarios.finetuned.retain_model={adapters: [lora]}",
    )
    for scenario in ("pretrained", "finetuned"):
        (operation,) = operations(protocol, scenario)
        scored = protocol.stage(operation.never_knew)
        assert (scored.model, scored.chain) == (f"retain_model:{scenario}", ())
        assert scored.ask == protocol.stage(operation.after).ask
        assert "retain_model" in conditions(protocol, scenario, "ga", 0)
        attacked = protocol.stage(f"seed0/{scenario}/retain-model/relearn")
        assert (attacked.model, attacked.chain) == (f"retain_model:{scenario}", ())
    # The sequence names none and is given one that is trained, of another name.
    for operation in operations(protocol, "sustainability"):
        assert operation.never_knew == "seed0/retain-model/score"


def test_a_curve_of_relearning_is_held_against_the_retain_models_at_the_same_step():
    protocol = plan("evaluations={retain_model: {}, relearning: {steps: [2, 6]}}")
    by_condition = {
        one.cell.condition: one
        for one in protocol.evaluations
        if one.cell.scenario == "finetuned" and one.cell.request
    }
    for step in (0, 2, 6):
        control = by_condition[f"retain_model+relearned:{step}"].scores
        assert by_condition[f"relearned:{step}"].control == control
    assert by_condition["plain"].control == "seed0/retain-model/score"


def test_relearning_teaches_one_half_and_asks_for_the_other_beside_the_retain_model():
    protocol = plan("evaluations={relearning: {steps: [2, 6]}}")
    curve = ["relearned:0", "relearned:2", "relearned:6"]
    control = [f"retain_model+{condition}" for condition in curve]
    assert conditions(protocol, "finetuned", "ga", 1) == ["plain", *curve, *control]
    assert conditions(protocol, "pretrained", "ga", 1) == ["plain", *curve]
    assert conditions(protocol, "sustainability", "ga", 4) == ["plain"]
    assert conditions(protocol, "sustainability", "ga", 5) == ["plain", *curve, *control]
    (operation,) = operations(protocol, "finetuned")
    taught = protocol.stage("seed0/finetuned/ga/relearn")
    assert (taught.learn, taught.facts, taught.snapshots) == (operation.forget, "taught", (2, 6))
    assert (taught.settings.steps, taught.chain) == (6, operation.chain)
    scored = protocol.stage("seed0/finetuned/ga/relearn/score-step2")
    assert isinstance(scored, ScoreStage)
    assert (scored.facts, scored.facts_seed) == ("held_back", taught.facts_seed)
    assert (scored.step, scored.general, scored.chain) == (
        2,
        False,
        (*operation.chain, taught.name),
    )


def named(*requests, retained=()):
    """A roster with requests of these people, a week apart."""
    return Roster(
        ROSTER.fictional,
        ROSTER.celebrities,
        tuple(
            NamedRequest(f"r{number}", people, f"2026-01-{7 * number:02d}")
            for number, people in enumerate(requests, start=1)
        ),
        retained,
    )


def sequence(roster, *more, target="base"):
    only = f"scenarios={{requests: {{file: r.jsonl, target: {target}}}}}"
    return plan(only, "evaluations={retain_model: {}}", *more, roster=roster)


def test_named_people_are_forgotten_request_by_request():
    protocol = sequence(named(("f001", "f002", "c000"), ("f003",)))
    first, second = operations(protocol, "requests")
    assert [len(request.ids) for request in first.requests] == [3, 1]
    assert protocol.stage(second.unlearn).forget.ids == ("f003",)
    assert protocol.stage(second.unlearn).history == (first.unlearn,)
    # Who has asked by then is to be forgotten; who asks later was retained until then.
    assert first.forget.ids == ("f001", "f002", "c000")
    assert second.forget.ids == (*first.forget.ids, "f003")
    assert "f003" in protocol.stage(first.unlearn).retain.ids
    assert "f003" not in protocol.stage(second.unlearn).retain.ids
    assert not {*second.forget.ids} & {*first.retain.ids, *second.retain.ids}
    assert len(second.retain.ids) == len(ROSTER.everyone) - 4
    # Whoever taught it, and whatever adapters it has.
    assert (first.target, first.before, first.never_knew) == ((), "base/score", "")
    assert not [stage for stage in protocol.stages if isinstance(stage, FinetuneStage)]


def test_the_people_to_retain_may_be_named_and_the_rest_is_unseen():
    protocol = sequence(named(("f001",), ("f010",), retained=("f010", "f011")))
    first, second = operations(protocol, "requests")
    assert protocol.stage(first.unlearn).retain.ids == ("f010", "f011")
    assert protocol.stage(second.unlearn).retain.ids == ("f011",)
    assert first.retain.ids == second.retain.ids == ("f011",)
    unseen = dict(first.unseen)["unseen"].ids
    assert len(unseen) == len(ROSTER.everyone) - 3


@pytest.mark.parametrize("target", ["base", "finetuned"])
def test_a_request_next_month_changes_no_stage_of_the_earlier_ones(target):
    people = Planner(make("scenarios.requests={file: r.jsonl}"), ROSTER).learned(0)
    before = sequence(named(people[:3], people[3:4]), target=target)
    after = sequence(named(people[:3], people[3:4], people[4:7]), target=target)
    later = {stage.name: stage for stage in after.stages}
    assert {stage.name: later[stage.name] for stage in before.stages} == {
        stage.name: stage for stage in before.stages
    }
    assert len(later) > len(before.stages)


def test_each_request_has_the_retain_model_that_never_learned_those_named_by_then():
    people = Planner(make("scenarios.requests={file: r.jsonl}"), ROSTER).learned(0)
    protocol = sequence(named(people[:3], people[3:4]), target="finetuned")
    first, second = (
        protocol.stage(protocol.stage(one.never_knew).chain[-1]).learn.ids
        for one in operations(protocol, "requests")
    )
    assert (first, second) == (people[3:], people[4:])


def test_a_request_for_somebody_the_target_was_never_taught_is_refused():
    taught = Planner(make("scenarios.requests={file: r.jsonl}"), ROSTER).learned(0)
    stranger = next(name for name in ROSTER.fictional if name not in taught)
    with pytest.raises(ConfigError, match=f"not one that knows this person\n  got: {stranger}"):
        sequence(named((stranger,)), target="finetuned")


def test_a_registered_scenario_of_another_package_needs_nothing_else(monkeypatch):
    class Twice(ScenarioSettings):
        people: int

    def add(planner, seed, label, settings):
        assert settings.people == 7
        SCENARIOS.get("finetuned").plan(
            planner, seed, label, planner.experiment.scenarios.finetuned
        )

    monkeypatch.setitem(SCENARIOS._entries, "twice", Scenario("again", Twice, add))
    protocol = plan("scenarios.twice={people: 7}", "methods.ga.scenarios=[twice]")
    assert operations(protocol, "finetuned")
    with pytest.raises(ConfigError, match="did you mean 'people'"):
        plan("scenarios.twice={people: 7, peple: 3}")
    with pytest.raises(ConfigError, match="did you mean 'twice'"):
        plan("scenarios.twise={people: 7}")


def test_only_methods_that_take_part_are_planned_and_one_must():
    with pytest.raises(ConfigError, match="no method takes part"):
        plan(
            "scenarios={pretrained: {forget: 20, retain: 25}}",
            "methods={ga: {scenarios: [finetuned]}}",
        )


# --- trajectories


def test_a_trajectory_goes_the_last_operation_again_and_leaves_it_as_it_was():
    """Mutations: snapshots put on the operation itself; a seed drawn from the new name."""
    plain = plan()
    protocol = plan("evaluations={trajectory: {steps: [2, 6]}}")
    assert protocol.stages[: len(plain.stages)] == plain.stages
    (operation,) = operations(protocol, "finetuned")
    unlearn = protocol.stage(operation.unlearn)
    again = protocol.stage("seed0/finetuned/ga/trajectory")
    assert again.snapshots == (2, 6)
    same = replace(again, name=unlearn.name, snapshots=(), cell=unlearn.cell)
    assert same == unlearn  # seeds and orders, too
    scored = protocol.stage("seed0/finetuned/ga/trajectory/score-step6")
    after = protocol.stage(operation.after)
    assert (scored.ask, scored.general) == (after.ask, after.general)
    assert (scored.chain, scored.step) == ((*unlearn.chain, again.name), 6)
    path = ["plain", "step:0", "step:2", "step:6"]
    assert conditions(protocol, "finetuned", "ga", 1) == path
    assert conditions(protocol, "sustainability", "ga", 4) == ["plain"]
    assert conditions(protocol, "sustainability", "ga", 5) == path


def test_a_trajectory_of_a_sequence_begins_where_its_last_request_did():
    protocol = plan(
        "evaluations={trajectory: {steps: [2]}}", "methods.ga.unlearn.adapter=continued"
    )
    starts = {
        one.cell.scenario: one.scores
        for one in protocol.evaluations
        if (one.cell.method, one.cell.condition) == ("ga", "step:0")
    }
    assert starts["sustainability"] == "seed0/sustainability/ga/request4/score"
    assert starts["finetuned"] == "seed0/target/score"
    scored = protocol.stage("seed0/sustainability/ga/request5/trajectory/score-step2")
    # A continued adapter takes the place of the one it began with.
    assert scored.chain[-1] == "seed0/sustainability/ga/request5/trajectory"
    assert "seed0/sustainability/ga/request4/unlearn" not in scored.chain


def test_methods_with_nothing_on_the_way_have_no_trajectory_and_a_note_says_so():
    experiment = make(
        "evaluations={trajectory: {steps: [2, 40]}}",
        "methods={ga: {}, short: {method: ga, unlearn: {stop: {max_steps: 2}}}, "
        "task_vector: {}, refusal_guard: {}}",
    )
    protocol = build_plan(
        experiment,
        ROSTER,
        serving={"refusal_guard"},
        stepless={"task_vector", "refusal_guard"},
    )
    found = {one.cell.method for one in protocol.evaluations if one.cell.condition == "step:2"}
    assert found == {"ga"}
    for label in ("short", "task_vector", "refusal_guard"):
        assert sum(f"left out for {label}," in note for note in protocol.notes) == 1


def test_steps_of_a_trajectory_rise():
    with pytest.raises(ConfigError, match="steps must rise"):
        plan("evaluations={trajectory: {steps: [6, 2]}}")
