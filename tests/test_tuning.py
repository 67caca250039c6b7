"""`pulse tune`: other people, the same trials each time, and files that fit or are refused."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Annotated, Literal

import pytest
import yaml

from pipeline_cases import CELEBRITIES, in_own_process, make_experiment, settings
from pulse_unlearn.config import (
    LEARNING_RATE,
    STEPS,
    Choice,
    MethodEntry,
    Settings,
    Span,
    Tuning,
    dump_experiment,
    load_experiment,
    parse_experiment,
)
from pulse_unlearn.config.tuned import fill_in, read_tuning, shipped_tuning
from pulse_unlearn.errors import ConfigError, MethodError, Problem
from pulse_unlearn.methods import METHODS
from pulse_unlearn.methods.ga import GradientAscent
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.registries import schemas
from pulse_unlearn.tuning import (
    measure,
    space_of,
    study,
    tuning_experiment,
    values_given,
    with_values,
)
from pulse_unlearn.tuning.people import entry_of

PEOPLE = tuple(f"f{number:03d}" for number in range(1, 11))
TRIALS = ("--trials", "3")


def load(name="smoke", *overrides):
    return load_experiment(name, overrides=overrides, schemas=schemas())


class Part(Settings):
    size: Annotated[int, Span(1, 8)] = 2


class Knobs(Settings):
    """A method with one range of every kind; the lowest loss is at aim 0.3."""

    aim: Annotated[float, Span(0.01, 1.0)] = 0.5
    way: Annotated[Literal["left", "right"], Choice()] = "left"
    parts: tuple[Part, ...] = (Part(), Part(size=4))
    fixed: float = 1.0


@pytest.fixture
def knobs(monkeypatch):
    monkeypatch.setitem(METHODS._entries, "knobs", Knobs)
    return Knobs


# What is searched


def test_the_space_is_what_a_method_declares_and_the_same_two_for_all(knobs):
    experiment = load()
    found = {one.name: one for one in space_of(experiment, entry_of(experiment, "knobs"))}
    assert list(found) == [
        LEARNING_RATE,
        STEPS,
        "settings.aim",
        "settings.way",
        "settings.parts.0.size",
        "settings.parts.1.size",
    ]
    assert (found[LEARNING_RATE].low, found[LEARNING_RATE].high) == (3e-4, 3e-2)
    assert (found[STEPS].low, found[STEPS].high, found[STEPS].integer) == (1, 3, True)
    assert found["settings.way"].choices == ("left", "right")
    assert (found["settings.aim"].integer, found["settings.parts.0.size"].integer) == (False, True)
    shared = space_of(experiment, entry_of(experiment, "ga"))
    assert shared[:2] == tuple(found.values())[:2]


def test_values_go_where_they_were_read(knobs):
    experiment = load()
    entry = entry_of(experiment, "knobs")
    space = space_of(experiment, entry)
    given = values_given(entry, space)
    assert given["settings.parts.1.size"] == 4
    changed = with_values(entry, {**given, "settings.parts.1.size": 7, STEPS: 2})
    assert changed.settings["parts"] == [{"size": 2}, {"size": 7}]
    assert changed.unlearn.stop.max_steps == 2
    assert with_values(entry, given) == entry


def test_a_loss_inside_another_method_is_searched_too(knobs, monkeypatch):
    class Inner(GradientAscent):
        pull: Annotated[float, Span(0.1, 10.0)] = 1.0

    monkeypatch.setitem(METHODS._entries, "inner", Inner)
    experiment = load("smoke", "methods.ewc={settings: {loss: {method: inner}}}")
    space = space_of(experiment, entry_of(experiment, "ewc"))
    assert [one.name for one in space[2:]] == ["settings.loss.settings.pull", "settings.weight"]
    given = values_given(entry_of(experiment, "ewc"), space)  # the entry itself does not say it
    assert given["settings.loss.settings.pull"] == 1.0
    changed = with_values(entry_of(experiment, "ewc"), {"settings.loss.settings.pull": 3.0})
    assert changed.settings["loss"] == {"method": "inner", "weight": 1.0, "settings": {"pull": 3.0}}


def test_a_range_that_is_none_is_refused(monkeypatch):
    class Bad(Settings):
        aim: Annotated[float, Span(0.0, 1.0)] = 0.5

    monkeypatch.setitem(METHODS._entries, "bad", Bad)
    with pytest.raises(MethodError, match=r"bad settings\.aim"):
        space_of(load(), entry_of(load(), "bad"))


# On whom


def test_nobody_is_tuned_on_whom_the_experiment_reports_on():
    """Seed 0 of the tuning would draw the very people that seed 0 of the experiment draws."""
    experiment = load("smoke", "seeds=[0,1,2]")
    reported = {
        name
        for stage in read_inputs(experiment).plan.stages
        for group in stage.groups()
        for name in group.ids
    }
    assert len(reported) > 20
    entry = entry_of(experiment, "npo")
    tuning = tuning_experiment(experiment, entry, scenario="finetuned", seed=0)
    inputs = read_inputs(tuning)
    used = {name for stage in inputs.plan.stages for group in stage.groups() for name in group.ids}
    assert len(used) == 4 + 4 + 2
    assert not used & reported
    assert not set(inputs.people) & reported
    assert tuning.seeds == (0,)


def test_as_many_people_as_are_left():
    experiment = load(
        "smoke",
        "finetune.individuals=100",
        "scenarios.sustainability=null",
        "scenarios.finetuned={forget: 50, retain: 50}",
    )
    tuning = tuning_experiment(experiment, entry_of(experiment, "ga"), scenario="finetuned", seed=0)
    own = tuning.scenarios.finetuned
    assert (own.forget, own.retain, tuning.scenarios.unseen.celebrities) == (10, 10, 2)
    everyone = load(
        "smoke",
        "finetune.individuals=118",
        "scenarios.sustainability=null",
        "scenarios.finetuned={forget: 59, retain: 59}",
    )
    with pytest.raises(ConfigError, match="too few people are left"):
        tuning_experiment(everyone, entry_of(everyone, "ga"), scenario="finetuned", seed=0)


def test_requests_of_the_same_number_and_a_scenario_that_is_there():
    experiment = load(
        "smoke",
        "finetune.individuals=110",
        "scenarios.finetuned=null",
        "scenarios.sustainability={forget: 55, retain: 55, requests: 5}",
    )
    entry = entry_of(experiment, "ga")
    tuning = tuning_experiment(experiment, entry, scenario="sustainability", seed=0)
    assert tuning.scenarios.sustainability.forget == 5
    with pytest.raises(ConfigError, match="no such scenario"):
        tuning_experiment(experiment, entry, scenario="finetuned", seed=0)


def test_an_unknown_person_to_leave_out_and_an_unknown_method():
    with pytest.raises(ConfigError, match=r"data\.leave_out: nobody has this id"):
        read_inputs(load("smoke", "data.leave_out=[f001, f999]"))
    with pytest.raises(ConfigError, match=r"did you mean 'simnpo'"):
        entry_of(load(), "simnp")


# The trials


@pytest.fixture
def known_optimum(knobs, monkeypatch):
    """Trials without a model: best at aim 0.3, way right; aims above 0.9 are refused."""
    ran = []

    def run(experiment, runs, **_):
        run.entries = dict(experiment.methods)
        for entry in experiment.methods.values():
            if entry.settings["aim"] > 0.9:
                raise MethodError(Problem("too far"))
        ran.append(sorted(experiment.methods))
        return SimpleNamespace(run=runs, raise_failures=lambda: None)

    def measured(_run, label):
        own = run.entries[label].settings
        value = -((own["aim"] - 0.3) ** 2) - (0.0 if own["way"] == "right" else 0.05)
        return SimpleNamespace(objective=value, known=0.0, kept={"retain": 1.0})

    monkeypatch.setattr(study, "run_experiment", run)
    monkeypatch.setattr(study, "measure", measured)
    monkeypatch.setattr(study, "_verdict", lambda run: "")
    monkeypatch.setattr(study, "_steps", lambda run: 3)
    return ran


def test_trials_find_a_known_optimum_and_are_the_same_each_time(known_optimum, tmp_path):
    found = study.tune(load(), "knobs", tmp_path, trials=40, seed=1).tuning
    assert known_optimum[-1] == [one.label for one in found.trials if one.objective is not None]
    best = found.best.values
    assert best["settings.way"] == "right"
    assert best["settings.aim"] == pytest.approx(0.3, abs=0.05)
    assert found.settings["aim"] == best["settings.aim"]
    assert found.trials[0].values["settings.aim"] == 0.5  # as given
    failed = [one for one in found.trials if one.failed]
    assert failed
    assert all("too far" in one.failed and one.objective is None for one in failed)
    assert all(1 <= one.values[STEPS] <= 3 for one in found.trials)
    fewer = study.tune(load(), "knobs", tmp_path, trials=20, seed=1).tuning
    assert fewer.trials == found.trials[:20]


def test_without_optuna_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'pulse-unlearn\[tune\]'"):
        study.tune(load(), "ga", tmp_path, trials=1)


ROWS = """scenario,method,scope,seed,request,condition,set,modality,measure,value
finetuned,a,x,0,1,plain,forget,all,latent_forgotten_pct_over_chance,75
finetuned,a,x,0,1,plain,retain,all,kept_pct_over_chance,120
finetuned,a,x,0,1,plain,unseen,all,kept_pct_over_chance,
finetuned,a,x,0,1,plain,general,all,kept_pct_over_chance,50
finetuned,a,x,0,1,plain,general,multimodal,kept_pct_over_chance,1
finetuned,b,x,0,1,plain,forget,all,latent_forgotten_pct_over_chance,
finetuned,b,x,0,1,plain,retain,all,kept_pct_over_chance,50
"""


def test_the_number_is_what_is_kept_less_what_is_known(tmp_path):
    """Kept 100 (120 counts as all) and 50 %, unseen people unknown; 25 % still known."""
    (tmp_path / "results.csv").write_text(ROWS, encoding="utf-8")
    found = measure(tmp_path, "a")
    assert found.kept == {"retain": 1.0, "general": 0.5}
    assert found.objective == pytest.approx(0.75 - 0.25)
    with pytest.raises(ConfigError, match="does not know D_unlearn above chance"):
        measure(tmp_path, "b")


# The command


def tunable(root):
    chosen = settings(root)
    chosen["scoring"] |= {"people": "vanilla", "words": "none"}  # for time's sake
    # Taught so, the letter it says is by luck true above chance for some; each step then matters.
    chosen["finetune"] |= {"update": "full", "epochs": 10, "forms": "multiple_choice", "replay": 0}
    chosen["finetune"]["optimiser"]["learning_rate"] = 1e-2
    chosen["unlearn"]["optimiser"] = {**chosen["unlearn"]["optimiser"], "learning_rate": 0.1}
    chosen["methods"] = {"npo": {"settings": {"beta": 1.0}}}
    chosen["scenarios"] = {"finetuned": {"forget": 2, "retain": 2}}
    return chosen


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("tune"), tunable, "tiny", PEOPLE + CELEBRITIES)


@pytest.fixture(scope="module")
def tuned(world, server):
    """An uninterrupted tuning's file and run folder."""
    out, runs = world.parent / "whole.json", world.parent / "whole"
    ended = server.pulse("tune", str(world), "npo", *TRIALS, "--runs", str(runs), "--out", str(out))
    assert ended.code == 0, ended.output
    return out, runs / "tiny-tuning", ended


@pytest.mark.slow  # a whole tuning again
def test_side_by_side_it_finds_the_same(world, tuned, tmp_path):
    out = tmp_path / "again.json"
    command = ("tune", str(world), "npo", *TRIALS, "--runs", str(tmp_path), "--out", str(out))
    ended = in_own_process(*command, "--on", "local:2")
    assert ended.returncode == 0, ended.stderr
    assert out.read_bytes() == tuned[0].read_bytes()
    for name in ("results.csv", "plan.json", "experiment.yaml"):
        whole = (tuned[1] / name).read_text().replace(str(tuned[1].parent), str(tmp_path))
        assert (tmp_path / "tiny-tuning" / name).read_text() == whole
    # All three are drawn at random: none waited for the one before.
    began = ended.stderr.index("npo-002/unlearn")
    assert began < ended.stderr.index("trial 0:")


def test_trials_drawn_at_random_are_computed_together_and_then_one_by_one(known_optimum, tmp_path):
    alone = study.tune(load(), "knobs", tmp_path, trials=8, seed=3).tuning
    one_by_one = known_optimum.copy()
    known_optimum.clear()
    beside = study.tune(load(), "knobs", tmp_path, trials=8, seed=3, on="local:2").tuning
    assert beside == alone
    kept = [one for one in alone.trials[: study.AT_RANDOM] if not one.failed]
    together, *rest = known_optimum
    assert rest == one_by_one
    assert together == [one.label for one in kept]


@pytest.mark.slow  # a whole tuning again
def test_killed_and_continued_it_ends_alike(world, server, tuned, tmp_path):
    out = tmp_path / "again.json"
    command = ("tune", str(world), "npo", *TRIALS, "--runs", str(tmp_path), "--out", str(out))
    killed = server.pulse(*command, events=2, mark="npo-001.unlearn")
    assert killed.code < 0, killed.output
    assert not out.exists()
    ended = server.pulse(*command)
    assert ended.code == 0, ended.output
    assert "npo-000/score: complete" in ended.output
    assert out.read_bytes() == tuned[0].read_bytes()
    assert (tmp_path / "tiny-tuning" / "results.csv").read_bytes() == (
        tuned[1] / "results.csv"
    ).read_bytes()


def test_the_file_and_the_table_say_what_was_done(tuned):
    found = Tuning.model_validate_json(tuned[0].read_text(encoding="utf-8"))
    assert (found.method, found.budget.trials, found.budget.seed) == ("npo", 3, 0)
    assert {name: len(ids) for name, ids in found.people.items()} == {
        "forget": 2,
        "retain": 2,
        "unseen_fictional": 1,
    }
    assert len(found.model) == 64
    assert found.best.objective == max(one.objective for one in found.trials)
    assert found.trials[0].values[LEARNING_RATE] == 0.1
    assert found.trials[1].values != found.trials[2].values
    assert f"* {found.winner}" in tuned[2].output
    assert tuned[2].output.count("seed0/finetune: done") == 1  # one target for all
    run = yaml.safe_load((tuned[1] / "experiment.yaml").read_text(encoding="utf-8"))
    assert sorted(run["methods"]) == [one.label for one in found.trials]


# Taking the winner


def entry(path, **own):
    text = yaml.safe_dump({**yaml.safe_load(path[0].read_text()), "methods": {"npo": own}})
    return parse_experiment(text, where="x.yaml", schemas=schemas())


def test_the_winner_fills_in_what_an_entry_does_not_set(world, tuned):
    found = Tuning.model_validate_json(tuned[0].read_text(encoding="utf-8"))
    values = found.best.values
    plain = entry([world], tuned=str(tuned[0]))
    taken = plain.methods["npo"]
    assert taken.unlearn.optimiser.learning_rate == values[LEARNING_RATE]
    assert taken.unlearn.stop.max_steps == values[STEPS]
    assert taken.unlearn.stop.check_every == 2  # the experiment's
    assert taken.settings["beta"] == 1.0  # the label's own, which the file holds as well
    own = entry(
        [world],
        tuned=str(tuned[0]),
        settings={"beta": 2.0},
        unlearn={"optimiser": {"learning_rate": 0.5}},
    ).methods["npo"]
    assert (own.settings["beta"], own.unlearn.optimiser.learning_rate) == (2.0, 0.5)
    assert own.unlearn.stop.max_steps == values[STEPS]


def test_the_record_stands_alone_and_says_where_settings_are_from(world, tuned, tmp_path):
    copy = tmp_path / "npo.json"
    copy.write_bytes(tuned[0].read_bytes())
    resolved = entry([world], tuned=str(copy))
    copy.unlink()
    record = parse_experiment(dump_experiment(resolved), where="run", schemas=schemas())
    assert record == resolved
    by = record.methods["npo"].tuned
    assert (by.budget.trials, by.budget.seed, len(by.sha256)) == (3, 0, 64)
    assert by.winner == Tuning.model_validate_json(tuned[0].read_text()).best
    notes = read_inputs(record).notes
    assert any("3 trials" in note or "of 3" in note for note in notes)
    assert any(by.sha256[:12] in note for note in notes)


def test_every_method_has_settings_found_on_the_embedded_world_with_one_budget():
    experiment = load_experiment("all-methods", schemas=schemas())
    found = {name: read_tuning(shipped_tuning(name))[0] for name in METHODS.names()}
    assert len({(t.budget, t.experiment, t.model, str(t.data)) for t in found.values()}) == 1
    assert {t.people["forget"] for t in found.values()} == {found["ga"].people["forget"]}
    for name, tuning in found.items():
        assert sum(not trial.failed for trial in tuning.trials) >= tuning.budget.trials / 2, name
        assert tuning.best.objective == max(t.objective for t in tuning.trials if not t.failed)
        entry = experiment.methods[name]
        assert (entry.settings, entry.tuned.file) == (tuning.settings, "world")
        assert entry.unlearn.optimiser.learning_rate == tuning.best.values[LEARNING_RATE]
        assert entry.unlearn.stop.max_steps == tuning.best.values[STEPS]


def test_it_is_not_reported_on_whom_it_was_tuned_on(world, tuned):
    resolved = entry([world], tuned=str(tuned[0]))
    seed = next(
        seed
        for seed in range(1, 20)
        if {name for ids in resolved.methods["npo"].tuned.people.values() for name in ids}
        & read_inputs(
            resolved.model_copy(
                update={"seeds": (seed,), "methods": {"ga": MethodEntry(method="ga")}}
            )
        ).plan.asked_about()
    )
    with pytest.raises(ConfigError, match="report on people whom these settings were tuned on"):
        read_inputs(resolved.model_copy(update={"seeds": (seed,)}))


def test_files_that_do_not_fit(world, tuned, tmp_path):
    def with_file(text, **own):
        path = tmp_path / "npo.json"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            entry([world], tuned=str(path), **own)
        return str(caught.value)

    whole = tuned[0].read_text(encoding="utf-8")
    found = json.loads(whole)
    assert "tuned for another method" in with_file(whole, method="ga")
    assert "another kind of update" in with_file(whole, unlearn={"update": "full"})
    strange = with_file(json.dumps({**found, "settings": {"betta": 1}}))
    assert "unknown setting" in strange
    assert "'betta'" in strange
    assert "did you mean 'beta'" in strange
    assert "cannot read" in with_file("{")
    assert "unknown setting" in with_file(json.dumps({**found, "more": 1}))
    assert "a setting is missing" in with_file("{}")
    assert "not complete" in with_file(json.dumps({**found, "winner": 9}))
    with pytest.raises(ConfigError, match="cannot read the tuned settings"):
        entry([world], tuned=str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("own", "found", "filled"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 2}, {"a": 1, "b": {"c": 3}}, {"a": 2, "b": {"c": 3}}),
        ({"b": {"d": 4}}, {"b": {"c": 3}}, {"b": {"c": 3, "d": 4}}),
        ({"l": [{"k": 1}]}, {"l": [{"k": 0, "w": 2}]}, {"l": [{"k": 1, "w": 2}]}),
        ({"l": [{"k": 1}]}, {"l": [{"w": 2}, {}]}, {"l": [{"k": 1}]}),
    ],
)
def test_own_values_win_deep_down(own, found, filled):
    assert fill_in(own, found) == filled
