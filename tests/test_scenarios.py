"""Plans are pure data: who is in which set, what rests on what, what is shared."""

from __future__ import annotations

import pytest

from pulse_unlearn.config import parse_experiment
from pulse_unlearn.errors import ConfigError
from pulse_unlearn.methods import schemas
from pulse_unlearn.scenarios import Roster, build_plan, derive_seed

ROSTER = Roster(
    tuple(f"f{number:03d}" for number in range(120)),
    tuple(f"c{number:03d}" for number in range(153)),
)
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


def plan(*overrides):
    experiment = parse_experiment(PROTOCOL, where="p.yaml", overrides=overrides, schemas=schemas())
    return build_plan(experiment, ROSTER)


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
    settings = select.settings["pretrained"]
    assert (settings["forget"], settings["retain"], len(select.ask.ids)) == (20, 25, 153)


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


def test_derived_seeds_are_pinned():
    """A change here changes every run: it must be meant."""
    assert derive_seed(0, "seed0/finetune") == 2010558540
    assert derive_seed(1, "seed0/finetune") != derive_seed(0, "seed0/finetune")


def test_too_few_people_are_told():
    with pytest.raises(ConfigError, match="not enough individuals"):
        plan("finetune.individuals=130", "scenarios={finetuned: {forget: 65, retain: 65}}")
