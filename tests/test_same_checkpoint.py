"""Two groups of people unlearned from one checkpoint: who is paired, and what is made of it."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from functools import cache
from random import Random
from statistics import fmean

import pytest

from pipeline_cases import make_experiment, result_rows, settings
from pulse_unlearn.errors import ConfigError, DataError
from pulse_unlearn.evaluation.matching import Confidence, match
from pulse_unlearn.pipeline.arms import arm_contrasts, arm_json
from pulse_unlearn.pipeline.choices import choose, forgotten_and_kept, note_of, told_of
from pulse_unlearn.pipeline.findings import Evidence
from pulse_unlearn.report.arms import arms
from pulse_unlearn.report.extras import read_extras
from pulse_unlearn.scenarios import (
    ARM,
    SAME_CHECKPOINT,
    FinetuneStage,
    MatchStage,
    ScoreStage,
    UnlearnStage,
    build_plan,
)
from pulse_unlearn.scenarios.stages import SIDES
from pulse_unlearn.store import verify
from synthetic_scores import person_score, prediction
from test_scenarios import ROSTER, make

FINETUNED, PRETRAINED = (f"{SAME_CHECKPOINT}{ARM}{name}" for name in ("finetuned", "pretrained"))
SMALL = (
    "methods={ga: {}, ga_full: {method: ga, unlearn: {update: full}}}",
    "finetune.individuals=30",
    "scenarios={same_checkpoint: {forget: 10, retain: 6, candidates: 40}, "
    "unseen: {celebrities: 5, fictional: 3}}",
)


def plan(*more):
    return build_plan(make(*SMALL, *more), ROSTER)


def of_arm(of_plan, name, method="ga"):
    (found,) = [
        one for one in of_plan.operations if (one.cell.scenario, one.cell.method) == (name, method)
    ]
    return found


def matching_stage(of_plan) -> MatchStage:
    (found,) = [one for one in of_plan.stages if isinstance(one, MatchStage)]
    return found


# --- the plan


def test_both_arms_are_unlearned_from_one_model_with_one_d_retain():
    made = plan()
    first, second = of_arm(made, FINETUNED), of_arm(made, PRETRAINED)
    assert first.target == second.target == ("seed0/finetune",)
    assert first.before == second.before
    assert first.retain == second.retain
    assert (first.forget.part, second.forget.part) == SIDES
    assert first.forget.selection == second.forget.selection == matching_stage(made).name
    for name in ("unseen", "unseen_fictional"):
        assert dict(first.unseen)[name] == dict(second.unseen)[name]
    # Whom the other arm forgets is as well known, and of the other kind: what spills over.
    assert dict(first.unseen)["other_arm"] == second.forget
    assert dict(second.unseen)["other_arm"] == first.forget
    asked = [made.stage(one.after).ask for one in (first, second)]
    assert asked[0] == asked[1] == made.stage(first.before).ask


def test_arms_differ_in_their_people_and_in_nothing_that_is_drawn():
    """Mutation: seeds derived from the stage's own name, which holds the arm's."""
    made = plan("evaluations={trajectory: {steps: [2]}}")
    for method in ("ga", "ga_full"):
        one, other = (made.stage(of_arm(made, n, method).unlearn) for n in (FINETUNED, PRETRAINED))
        assert isinstance(one, UnlearnStage)
        assert (one.seed, one.order_seed) == (other.seed, other.order_seed)
        assert one.settings == other.settings
        assert one.retain == other.retain
    updates = [
        made.stage(of_arm(made, FINETUNED, m).unlearn).settings.update for m in ("ga", "ga_full")
    ]
    assert updates == ["lora", "full"]
    steps = [one.cell for one in made.evaluations if one.cell.condition == "step:2"]
    assert {cell.scenario for cell in steps} == {FINETUNED, PRETRAINED}


def test_people_are_paired_by_views_that_are_never_reported():
    """Mutation: the target model's scored answers as what the match asks for."""
    made = plan()
    stage = matching_stage(made)
    asked = made.stage(stage.asked)
    assert isinstance(asked, ScoreStage)
    assert asked.view == "other_view"
    assert asked.chain == ("seed0/finetune",)
    assert stage.parents == (stage.asked,)
    assert {*asked.ask[0].ids} == {
        *made.stage("seed0/finetune").learn.ids,
        *ROSTER.celebrities[:40],
    }
    reported = {one.scores for one in made.evaluations}
    assert stage.asked not in reported


def test_the_fine_tuned_arm_has_a_retain_model_and_the_other_only_a_named_one():
    made = plan("evaluations={retain_model: {}}")
    first, second = of_arm(made, FINETUNED), of_arm(made, PRETRAINED)
    retained = made.stage(made.stage(first.never_knew).chain[-1])
    assert isinstance(retained, FinetuneStage)
    assert retained.learn.part == "without_first"
    assert retained.settings == made.stage("seed0/finetune").settings
    assert second.never_knew == ""
    rows = {one.cell.scenario for one in made.evaluations if one.cell.condition == "retain_model"}
    assert rows == {FINETUNED}
    named = plan(
        "scenarios.same_checkpoint.retain_model=elsewhere", "evaluations={retain_model: {}}"
    )
    gold = named.stage(of_arm(named, PRETRAINED).never_knew)
    assert gold.model == f"retain_model:{SAME_CHECKPOINT}"
    assert of_arm(named, FINETUNED).never_knew.endswith("finetuned/retain-model/score")


def test_arms_may_be_two_groups_of_ones_own():
    ids = [f"c{number:03d}" for number in range(60)]
    own = json.dumps({"tied": ids[:20], "free": ids[40:]})
    made = plan(f"scenarios.same_checkpoint.arms={own}", "evaluations={retain_model: {}}")
    assert matching_stage(made).arms == (("tied", tuple(ids[:20])), ("free", tuple(ids[40:])))
    assert {one.cell.scenario for one in made.operations} == {
        "same_checkpoint.tied",
        "same_checkpoint.free",
    }
    assert {one.never_knew for one in made.operations} == {""}
    unknown = json.dumps({"tied": ["c0000", *ids[:20]], "free": ids[40:]})
    with pytest.raises(ConfigError, match="not one that knows this person"):
        plan(f"scenarios.same_checkpoint.arms={unknown}")


def test_arms_of_the_model_before_any_fine_tuning_are_named_and_nobody_is_taught():
    """Mutation: `target` left out of the chain of the match, or of the target model."""
    ids = [f"c{number:03d}" for number in range(60)]
    own = json.dumps({"tied": ids[:20], "free": ids[40:]})
    base = ("scenarios.same_checkpoint.target=base", "scenarios.unseen.fictional=0")
    made = plan(*base, f"scenarios.same_checkpoint.arms={own}")
    assert not [one for one in made.stages if isinstance(one, FinetuneStage)]
    match = matching_stage(made)
    assert match.taught == match.likely("without_first") == ()
    assert not [one for one in match.candidates.ids if one.startswith("f")]
    assert made.stage(match.asked).chain == ()
    assert {one.target for one in made.operations} == {()}
    steps = [one for one in made.stages if isinstance(one, UnlearnStage)]
    assert {(one.chain, one.reference_depth) for one in steps} == {((), 0)}
    assert len(steps) == 4
    with pytest.raises(ConfigError, match="nobody was taught, so name two groups in arms"):
        plan(*base)
    with pytest.raises(ConfigError, match=r"name celebrities$"):
        plan(*base, f"scenarios.same_checkpoint.arms={own.replace('c000', 'nobody')}")


def test_too_few_people_and_arms_that_overlap_are_told_before_anything_runs():
    with pytest.raises(ConfigError, match="fictional is 12"):
        plan("finetune.individuals=15")
    both = json.dumps({"a": ["c001"] * 16, "b": ["c001", "c002"]})
    with pytest.raises(ConfigError, match="arms: in both: c001") as told:
        plan(f"scenarios.same_checkpoint.arms={both}")
    assert "arms.b: 2 people, and 16 pairs are wanted" in str(told.value)


# --- the match


def sure_of(prefix, *values):
    return [
        Confidence(f"{prefix}{number}", {"multimodal": value, "text_only": value})
        for number, value in enumerate(values)
    ]


def test_so_many_pairs_are_chosen_as_are_wanted_and_none_of_as_many_is_closer():
    random = Random(0)
    for _ in range(30):
        first = sure_of("f", *(random.random() for _ in range(random.randint(3, 5))))
        second = sure_of("c", *(random.random() for _ in range(random.randint(3, 6))))
        count = random.randint(1, 3)
        found = match(first, second, count=count, caliper=1.0)
        every = (
            sum(a.apart(b) for a, b in zip(some, others, strict=True))
            for some in itertools.combinations(first, count)
            for others in itertools.permutations(second, count)
        )
        assert len(found) == count
        assert len({pair.first for pair in found}) == len({pair.second for pair in found}) == count
        assert sum(pair.apart for pair in found) == pytest.approx(min(every))


def test_nobody_is_paired_who_is_hardly_known_or_far_apart():
    """c0 and f0 are alike and unknown; c1 is known as f1 is on average, and in no modality."""
    first = sure_of("f", 0.2, 0.9, 0.8)
    second = [*sure_of("c", 0.2), Confidence("c1", {"multimodal": 1.0, "text_only": 0.8})]
    second += sure_of("d", 0.78)
    (pair,) = match(first, second, count=1, caliper=0.05, at_least=0.5)
    assert (pair.first, pair.second) == ("f2", "d0")
    with pytest.raises(DataError, match=r"1 pairs within .* of 2 and 2 people known"):
        match(first, second, count=2, caliper=0.05, at_least=0.5)
    assert len(match(first, second, count=2, caliper=0.1, at_least=0.5)) == 2


def answers(people):
    """One readable answer in each modality: `people` says how likely the true option B is."""
    found = []
    for person, likely in people.items():
        rest = (1 - likely) / 3
        log_probs = [max(p, 1e-9) for p in (rest, likely, rest, rest)]
        for modality in ("multimodal", "text_only"):
            one = prediction("B", log_probs=[math.log(p) for p in log_probs])
            key = f"{person}/{modality}"
            found.append(
                replace(one, example_id=key, question_id=key, individual=person, modality=modality)
            )
    return found


@pytest.fixture(scope="module")
def chosen():
    """Fine-tuned people are known with 0.7 to 1, celebrities with anything from 0.1 to 1."""
    made, random = plan(), Random(1)
    stage = matching_stage(made)
    known = {one: random.uniform(0.7, 1.0) for one in stage.taught}
    celebrities = [one for one in stage.candidates.ids if one not in known]
    known |= {one: random.uniform(0.1, 1.0) for one in celebrities}
    return stage, known, choose(stage, answers(known))


def test_paired_people_are_as_well_known_where_drawn_ones_are_not(chosen):
    stage, known, found = chosen
    first, second = ([known[one] for one in found[side]] for side in SIDES)
    drawn = abs(
        fmean(known[one] for one in stage.taught)
        - fmean(known[one] for _, ids in stage.arms[1:] for one in ids)
    )
    assert drawn > 0.2
    assert abs(fmean(first) - fmean(second)) < 0.02
    # Not the mean alone: sorted, both are alike place by place.
    assert max(abs(a - b) for a, b in zip(sorted(first), sorted(second), strict=True)) < 0.1
    balance = found["balance"]
    assert balance["mean"] == pytest.approx([fmean(first), fmean(second)], abs=1e-6)
    assert abs(balance["everybody"][0] - balance["everybody"][1]) == pytest.approx(drawn)


def test_everybody_is_in_one_part_and_both_kinds_are_retained(chosen):
    stage, _, found = chosen
    parts = [found[name] for name in (*SIDES, "retain", "unseen", "unseen_fictional", "others")]
    everyone = [one for part in parts for one in part]
    assert len(everyone) == len({*everyone})
    assert [len(part) for part in parts[:5]] == [10, 10, 12, 5, 3]
    assert {*found["first"]} <= {*stage.taught}
    assert not {*found["second"]} & {*stage.taught}
    assert sum(one in stage.taught for one in found["retain"]) == 6
    assert {*found["without_first"]} == {*stage.taught} - {*found["first"]}
    for part in ("retain", "unseen", *SIDES):
        assert len(stage.likely(part)) == len(found[part])
    assert forgotten_and_kept(found)[1][0] == ("forget", tuple(found["second"]))


def test_the_note_says_what_the_match_left_over(chosen):
    stage, known, found = chosen
    told = note_of(stage, found)
    mean = [f"{fmean(known[one] for one in found[side]):.3f}" for side in SIDES]
    assert f"{mean[0]} against {mean[1]} on average in D_unlearn" in told
    assert told_of(stage, found)["furthest"] <= stage.settings.caliper


# --- the contrasts


def evidence_of(*more, known, steps=20):
    """Invented answers: `known(stage, kind, number)` says whether a model knows a question.

    Kinds are `f` and `c` for people, by their ids, and `` for general questions.
    """
    made = plan("evaluations={trajectory: {steps: [5, 10]}}", *more)
    parts = {
        part: matching_stage(made).likely(part)
        for part in (*SIDES, "retain", "unseen", "unseen_fictional")
    }

    def resolve(group):
        return parts[group.part] if group.selection else group.ids

    @cache
    def scores_of(name):
        people = dict.fromkeys(one for group in made.stage(name).ask for one in resolve(group))
        found = [
            person_score(
                person,
                k,
                right=known(name, person, k),
                modality=modality,
                rotated=float(known(name, person, k)),
            )
            for person in people
            for modality in ("multimodal", "text_only")
            for k in range(4)
        ]
        general = [person_score("", k, right=known(name, "", k)) for k in range(40)]
        return found + general

    outcome = {"steps": steps, "stopped_by": "max_steps"}
    return Evidence(made, scores_of, lambda name: outcome, resolve, {}, {})


def one_of(found, kind, of_set, measure="accuracy", method="ga"):
    (one,) = [
        c for c in found if (c.kind, c.set, c.measure, c.method) == (kind, of_set, measure, method)
    ]
    return one


FORGET = {FINETUNED: "first", PRETRAINED: "second"}


def knowing():
    """Taught people are forgotten by three quarters at the end, celebrities by half.

    General questions fall from all to a half with celebrities alone, evenly over the steps.
    """

    stage_of = matching_stage(plan())
    people = {name: stage_of.likely(part) for name, part in FORGET.items()}

    def known(stage, person, number):
        arm = next((name for name in FORGET if name in stage), None)
        if arm is None:
            return True
        step = int(stage.rpartition("step")[2]) if "step" in stage else 20
        if not person:
            return arm == FINETUNED or number >= step
        if person in people[arm]:
            left = {FINETUNED: 4 - 3 * step / 20, PRETRAINED: 4 - 2 * step / 20}[arm]
            return number < left
        return True

    return known


@pytest.fixture(scope="module")
def contrasts():
    evidence = evidence_of(known=knowing())
    return arm_contrasts(evidence)


def test_what_is_forgotten_is_held_against_each_other_pair_by_pair(contrasts):
    lost = one_of(contrasts, "forgotten", "forget")
    assert lost.contrast.by_seed[0].value == pytest.approx(0.25)
    assert lost.contrast.settled == "too few runs"
    assert lost.arms == ("finetuned", "pretrained")
    assert one_of(contrasts, "before", "forget", method="").contrast.by_seed[0].value == 0.0
    # Ten pairs, all alike: no flip of 2^10 but two is as far; corrected for two methods.
    assert lost.contrast.by_seed[0].p_value == pytest.approx(2 * 2 / 2**10)
    assert {one.update for one in contrasts if one.method == "ga_full"} == {"full"}


def test_a_pair_is_held_against_itself():
    """Pairs lose all and three quarters, or a quarter and nothing: a quarter apart, every one.

    Mutation: everybody of the first arm against each of the second, which scatters widely.
    """
    stage = matching_stage(plan())
    pairs = [stage.likely(side) for side in SIDES]
    left = {pairs[0][k]: (0, 3)[k % 2] for k in range(10)}
    left |= {pairs[1][k]: (1, 4)[k % 2] for k in range(10)}

    def known(name, person, number):
        arm = next((one for one in FORGET if one in name), None)
        mine = arm is not None and person in pairs[(FINETUNED, PRETRAINED).index(arm)]
        return not mine or "step" in name or number < left[person]

    gap = one_of(arm_contrasts(evidence_of(known=known)), "forgotten", "forget").contrast.by_seed[0]
    assert gap.value == pytest.approx(0.25)
    assert gap.p_value == pytest.approx(2 * 2 / 2**10)


def test_what_is_kept_at_the_end_and_where_as_much_is_forgotten(contrasts):
    """Half above chance, 62.5 %, is reached at 75 % and 50 % on lines between the steps.

    Mutation: each arm's end in place of the point where its own path comes down to the level.
    """
    end = one_of(contrasts, "kept", "general")
    assert end.contrast.by_seed[0].value == pytest.approx(0.5)
    matched = one_of(contrasts, "kept_matched", "general")
    assert 0.2 < matched.contrast.by_seed[0].value < 0.5
    assert matched.told[0].startswith("62% left after ")
    assert one_of(contrasts, "kept", "retain").contrast.by_seed[0].value == 0.0
    assert not [one for one in contrasts if one.set == "other_arm"]
    # Nobody was asked in words; general questions in one order alone.
    assert {one.measure for one in contrasts} == {"accuracy", "rotated_accuracy"}
    assert not [
        one for one in contrasts if (one.set, one.measure) == ("general", "rotated_accuracy")
    ]


def test_an_arm_that_never_forgets_as_much_says_so_and_has_no_number():
    first = knowing()

    def known(name, person, number):
        return PRETRAINED in name or first(name, person, number)

    evidence = evidence_of(known=known)
    matched = one_of(arm_contrasts(evidence), "kept_matched", "general")
    assert not matched.contrast.by_seed
    assert matched.told == ("not down to 62%: pretrained stays at 100% or more",)


# --- the report


def test_the_page_has_both_arms_with_methods_updates_and_what_was_matched(contrasts, chosen):
    stage, _, found = chosen
    problems = []
    content = {"arms": [arm_json(one) for one in contrasts], "matches": [told_of(stage, found)]}
    section = arms(read_extras(json.loads(json.dumps(content)), problems))
    assert section is not None
    assert (section.first, section.second) == ("fine-tuned", "pre-trained")
    assert section.by_origin
    assert section.forgotten.columns == ("strict", "rotated")
    rows = {row.heads: row.cells for row in section.forgotten.rows}
    assert not [one for one in problems if "well formed" in str(one)]
    assert rows["known before", "before any", ""][0].value == "0.0"
    lost = rows["forgotten at the end", "GA", "LoRA"][0]
    assert (lost.value, lost.beside) == ("+25.0", ("p = 0.004",))
    assert (lost.estimate.value, lost.measure) == (0.25, "accuracy")
    kept = {row.heads: row.cells[0] for row in section.kept.rows}
    assert kept["General ability kept at the end", "ga_full", "full"].value == "+50.0"
    told = kept["General ability kept where as much is forgotten", "GA", "LoRA"].beside
    assert told[-1].startswith("62% left after")
    assert len(section.matched) == 1
    assert "10 pairs in D_unlearn and 6 in D_retain" in section.matched[0]
    assert arms(read_extras({}, [])) is None
    for one in content["arms"]:
        one["arms"] = ["tied", "free"]
    other = arms(read_extras(json.loads(json.dumps(content)), []))
    assert (other.first, other.second, other.by_origin) == ("tied", "free", False)


# --- the whole path


def two_arms(root):
    """A tiny model knows nobody, so anybody is paired with anybody."""
    chosen = settings(root)
    chosen["name"] = "arms"
    chosen["scoring"] |= {"people": "vanilla", "words": "none"}
    chosen["methods"] = {"ga": {}}
    chosen["scenarios"] = {
        "same_checkpoint": {
            **{"forget": 1, "retain": 1, "candidates": 3},
            **{"at_least": 0.0, "caliper": 1.0},
        },
        "unseen": {"celebrities": 1, "fictional": 1},
    }
    chosen["evaluations"] = {"retain_model": {}, "trajectory": {"steps": [1]}}
    return chosen


@pytest.mark.slow  # a whole run of a tiny model
def test_a_run_has_both_arms_in_every_file_and_on_the_page(server, tmp_path):
    experiment = make_experiment(tmp_path, two_arms, "arms")
    runs = tmp_path / "runs"
    ended = server.pulse("run", str(experiment), "--runs", str(runs))
    assert ended.code == 0, ended.output
    run = runs / "arms"
    assert verify(run) == []
    rows = result_rows(run)
    plain = [row for row in rows if row["condition"] == "plain"]
    assert {row["scenario"] for row in plain} == {FINETUNED, PRETRAINED}
    sets = {"forget", "retain", "unseen", "unseen_fictional", "other_arm", "general"}
    for arm in (FINETUNED, PRETRAINED):
        assert {row["set"] for row in plain if row["scenario"] == arm} == sets
    gold = {row["scenario"] for row in rows if row["condition"] == "retain_model"}
    assert gold == {FINETUNED}
    (folder,) = (run / "stages").glob("*match*")
    found = json.loads((folder / "selection.json").read_text(encoding="utf-8"))
    (learned,) = (run / "stages").glob("*finetuned.retain-model-*")
    taught = json.loads((learned / "outcome.json").read_text(encoding="utf-8"))["individuals"]
    assert {*taught} == {*found["without_first"]}
    assert not {*taught} & {*found["first"]}
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert {one["kind"] for one in results["arms"]} >= {"before", "forgotten", "kept"}
    assert any("are paired by the model's probability" in note for note in results["notes"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Does the contrast follow the origin?" in page
    assert "Same checkpoint: pre-trained people" in page
    before = (run / "results.json").read_bytes()
    (run / ".results.json").unlink()
    assert server.pulse("score", str(run)).code == 0
    assert (run / "results.json").read_bytes() == before
    for command in (("report", str(run)), ("tables", str(run), "--out", str(tmp_path / "tables"))):
        ended = server.pulse(*command)
        assert ended.code == 0, ended.output
    names = {path.stem for path in (tmp_path / "tables").iterdir()}
    assert names >= {f"accuracy-{FINETUNED}", f"readings-{PRETRAINED}", "origin-forgotten"}
