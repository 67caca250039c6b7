"""Served systems: the arithmetic of gates, who is refused, and what stays as it was to the bit."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace
from zlib import crc32

import pytest
import torch
import yaml

import tiny_models as tiny
from pipeline_cases import CELEBRITIES, FICTIONAL, make_general, make_people, result_rows, settings
from pulse_unlearn import registries, store
from pulse_unlearn.config import LoraSettings, UnlearnSettings, load_experiment, parse_experiment
from pulse_unlearn.errors import ConfigError, Interrupted, MethodError, ModelError
from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.evaluation.table import read_predictions
from pulse_unlearn.export.certificate import choose_operation
from pulse_unlearn.export.finished import choose_model, open_run
from pulse_unlearn.methods import METHODS, build_method, serves
from pulse_unlearn.methods.gates import Fitted, Gate, damped, fit_gate, margins
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.models.served import (
    INDEX,
    TENSORS,
    Entry,
    ServedSystem,
    Switched,
    beside,
    read_served,
)
from pulse_unlearn.pipeline.run import run_experiment
from pulse_unlearn.pipeline.served import REFUSAL, ask_served, refused
from pulse_unlearn.pipeline.signals import StopRequest
from pulse_unlearn.records import Prediction, key_of
from pulse_unlearn.report.estimates import Numbers
from pulse_unlearn.report.hidden import hidden_table, weights_know
from pulse_unlearn.report.load import load_run
from pulse_unlearn.report.words import percent
from pulse_unlearn.scenarios import Roster, ScoreStage, build_plan

REQUESTS = 5
PEOPLE = tuple(f"f{number:03d}" for number in range(1, 13))


# --- gates


def table(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def by_hand(*, margin):
    return fit_gate(
        table((1, 1), (1, -1)),
        ["a", "a"],
        table((0, 1), (-1, 1), (-1, -1), (0, -2)),
        ["c", "b", "b", "c"],
        shrinkage=0.5,
        false_share=0.0,
        margin=margin,
    )


def test_a_gate_worked_out_by_hand():
    """Views differ within a person along y alone, by +-1: S = diag(0, 1), tr(S) / D = 1/2.

    With shrinkage 1/2 the eigenvalues are 1/4 and 3/4, so y is scaled by sqrt(1/3) against x. The
    centre of a (1, +-1) and b (-1, +-1) is 0, the store of a is (1, 0). c calibrates.
    """
    found = by_hand(margin=0.0)
    gate = found.gate
    torch.testing.assert_close(gate.centre, table(0, 0).flatten())
    torch.testing.assert_close(gate.store, table((1, 0)))
    shrunk = table((1, 1 / math.sqrt(3)))
    torch.testing.assert_close(damped(gate, table((1, 1))), shrunk / shrunk.norm())
    assert float(gate.threshold) == pytest.approx(0.0)  # c stands at right angles to a
    torch.testing.assert_close(
        margins(gate, table((2, 2), (-3, 0))), torch.tensor([math.sqrt(3) / 2, -1]).double()
    )
    assert (found.caught, found.taken, found.calibrated_on) == (1.0, 0.0, 2)
    # a's own views stand at sqrt(3) / 2, so a margin of 1/2 raises the threshold half way there.
    higher = by_hand(margin=0.5).gate.threshold
    assert float(higher) == pytest.approx(math.sqrt(3) / 4)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_no_more_of_the_others_is_taken_than_was_said(share):
    drawn = torch.Generator().manual_seed(0)
    own = torch.randn(20, 6, generator=drawn, dtype=torch.float64)
    others = torch.randn(400, 6, generator=drawn, dtype=torch.float64)
    names = [f"p{n % 40}" for n in range(400)]
    found = fit_gate(own, ["a"] * 20, others, names, shrinkage=0.1, false_share=share, margin=0.25)
    assert found.calibrated_on == 200
    assert share - 0.02 <= found.taken <= share


def test_without_others_there_is_no_threshold():
    with pytest.raises(MethodError, match="threshold"):
        fit_gate(
            table((1, 1)),
            ["a"],
            torch.empty(0, 2).double(),
            [],
            shrinkage=0.1,
            false_share=0.1,
            margin=0.5,
        )


def gate_at(x, y, *, threshold=0.5):
    nothing = torch.zeros(0, 2).double()
    store_of = torch.nn.functional.normalize(table((x, y)), dim=-1)
    gate = Gate(table(0, 0), nothing, nothing[:, 0], store_of, torch.tensor(threshold).double())
    return Fitted(gate, 1.0, 0.0, 1)


def table_of(*requests):
    return ServedSystem("adapter", 0, tuple(Entry(f"r{n}", one) for n, one in enumerate(requests)))


def test_a_question_goes_to_the_likest_request_of_its_kind_or_to_nobody(tmp_path):
    system = table_of(
        {"pictured": gate_at(1, 0)}, {"pictured": gate_at(1, 1), "named": gate_at(-1, 0)}
    )
    states = table((1, 0), (1, 2), (-1, 0), (-1, 0), (1, 0))
    pictured = [True, True, True, False, False]
    assert system.taken_by(states, pictured) == [0, 1, None, 1, None]
    (tmp_path / TENSORS).write_bytes(system.tensors())
    (tmp_path / INDEX).write_text(json.dumps(system.index()))
    assert read_served(tmp_path).taken_by(states, pictured) == [0, 1, None, 1, None]
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(ModelError, match=r"served\.json"):
        read_served(tmp_path)


def test_nothing_can_be_read_off_a_refusal():
    options = tiny.example(0).options
    asked = [replace(tiny.example(0), rotation=turn, example_id=f"e{turn}") for turn in range(4)]
    asked = [
        replace(
            one,
            options=tuple(
                replace(option, text=options[(k + one.rotation) % 4].text)
                for k, option in enumerate(options)
            ),
            answer="BADC"[one.rotation] if one.rotation != 2 else "D",
        )
        for one in asked
    ]
    truth = {one.rotation: options[(1 - one.rotation) % 4].letter for one in asked}
    shown = [
        Prediction(
            **key_of(one),
            options=one.options,
            answer=truth[one.rotation],
            text="B",
            option_log_probs=(-5.0, -0.1, -4.0, -6.0),
        )
        for one in asked
    ]
    words = replace(
        shown[0],
        example_id="w",
        asked_as="words",
        option_log_probs=(-9.0, -1.0, -8.0, -7.0),
        end_log_probs=(-1.0,) * 4,
        option_tokens=(1, 2, 3, 4),
    )
    answers = [refused(one) for one in (*shown, words)]
    (read,) = by_question(answers, score_all(answers))
    assert {read.rotated, read.letter, read.words, read.words_per_token} == {0.25}
    assert (read.verdict, read.mentions, read.circular) == ("refused", 0.0, 0.0)


# --- embeddings


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder()


@pytest.mark.parametrize("packed", [False, True])
def test_a_prompt_is_the_mean_of_its_picture_or_of_its_words(packed, encoder):
    model = tiny.base()
    backend = Packed(model, encoder, budget=64) if packed else Plain(model, encoder)
    examples = [*tiny.mixed(), replace(tiny.example(0, shown=True), prompt="Another question?")]
    found = backend.prompt_states(examples, layer=0)
    for one, state in zip(examples, found, strict=True):
        inputs = encoder.prompts([one])
        with torch.no_grad():
            hidden = model(**inputs, output_hidden_states=True).hidden_states[1][0]
        picture = inputs["input_ids"][0] == encoder.image_token
        chosen = hidden[picture] if one.picture else hidden
        torch.testing.assert_close(state, chosen.double().mean(0), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found[0], found[-1], atol=1e-5, rtol=1e-4)  # the same picture


def test_switched_adapters_count_one_at_a_time(encoder, tmp_path):
    folders = [tiny.adapter_folder(tmp_path / f"{seed}", seed=seed) for seed in (1, 2)]
    examples = tiny.letters(2)
    switched = beside(tiny.base(), folders)

    def said(model):
        model.eval()
        with torch.no_grad():
            return Plain(model, encoder).answer_log_probs(examples, tokens="text").log_probs

    alone = [said(beside(tiny.base(), [folder]).model) for folder in folders]
    target = said(tiny.base())
    assert torch.equal(alone[0], target)  # all are off at first
    found = []
    for request in (None, 0, 1, None):
        switched.switch(request)
        found.append(said(switched.model))
    assert torch.equal(found[0], target)
    assert torch.equal(found[3], target)
    for place, folder in enumerate(folders):
        one = beside(tiny.base(), [folder])
        one.switch(0)
        assert torch.equal(found[place + 1], said(one.model))
        assert not torch.allclose(found[place + 1], target, atol=1e-2)


# --- settings and plans


def test_methods_say_what_they_serve_and_what_they_do_not_work_with():
    served = {name: serves(name) for name in METHODS.names() if serves(name)}
    assert served == {"adapter_router": "adapter", "refusal_guard": "refusal"}
    router = build_method("adapter_router", {})
    for wrong in ({"update": "full"}, {"adapter": "continued"}):
        (problem,) = router.problems(UnlearnSettings(**wrong))
        assert problem.where == f"unlearn.{next(iter(wrong))}"
    assert not list(router.problems(UnlearnSettings(lora=LoraSettings())))


def test_only_what_is_served_has_other_keys_and_requests_begin_from_the_target():
    experiment = parse_experiment(
        "name: p\n"
        "methods: {ga: {}, full: {method: ga, unlearn: {update: full}}, refusal_guard: {}}\n"
        "scenarios: {sustainability: {}}\n"
        "evaluations: {adapter_off: {}, relearning: {steps: [1]}}\n",
        where="p.yaml",
        schemas=registries.schemas(),
    )
    people = tuple(f"f{n:03d}" for n in range(100))
    plan = build_plan(experiment, Roster(people, ()), serving={"refusal_guard"})
    for stage in plan.stages:
        if isinstance(stage, ScoreStage):
            assert ("served" in stage.ingredients(experiment)) is bool(stage.served)
    by_method = {
        label: [one for one in plan.operations if one.cell.method == label]
        for label in ("ga", "refusal_guard")
    }
    for number, one in enumerate(by_method["refusal_guard"], start=1):
        assert one.chain == one.target == plan.stage(one.unlearn).chain
        assert len(one.served) == len(plan.stage(one.after).served) == number
        assert one.unlearn in plan.stage(one.after).parents
    assert [len(one.chain) for one in by_method["ga"]] == [2, 3, 4, 5, 6]
    off = [one for one in plan.evaluations if one.cell.condition == "adapter_off"]
    assert {one.cell.method for one in off} == {"ga", "refusal_guard"}
    assert {(one.scores, one.compared_to) for one in off} == {("seed0/target/score",) * 2}
    assert plan.notes == (
        "adapter_off: left out for full, whose full update leaves no adapter to switch off",
    )
    curve = [
        one
        for one in plan.evaluations
        if (one.cell.method, one.cell.condition) == ("refusal_guard", "relearned:0")
    ]
    assert [one.scores for one in curve] == ["seed0/target/score"]  # the weights, without the guard


# --- five requests, simulated


class Simulated:
    """A model to which a person is a direction, by face or by name, and each question another."""

    def __init__(self, people):
        drawn = torch.Generator().manual_seed(0)
        size = (2, len(people), 64)
        self.of = dict(zip(people, torch.randn(size, generator=drawn).transpose(0, 1), strict=True))
        self.said = []

    def prompt_states(self, examples, *, layer):
        rows = []
        for one in examples:
            noise = torch.Generator().manual_seed(crc32(one.example_id.encode()))
            kind = 0 if one.picture else 1
            rows.append(self.of[one.individual][kind] + 0.3 * torch.randn(64, generator=noise))
        return torch.stack(rows).double()

    def ask(self, examples):
        self.said.append(tuple(one.example_id for one in examples))
        return [
            Prediction(
                **key_of(one),
                options=one.options,
                answer=one.answer,
                text="target" if len(self.said) == 1 else "adapter",
                option_log_probs=(-1.0, -2.0, -3.0, -4.0),
            )
            for one in examples
        ]


def asked_about(people, first):
    """Ten questions about each, every other one with a picture."""
    return [
        replace(tiny.example(first + 10 * n + k, shown=k % 2 == 0), individual=name)
        for n, name in enumerate(people)
        for k in range(10)
    ]


@pytest.mark.parametrize("kind", ["refusal", "adapter"])
def test_five_simulated_requests_take_their_people_by_picture_and_by_name(kind, monkeypatch):
    people = [f"p{n}" for n in range(25)]
    gone, retained, unseen = people[:5], people[5:17], people[17:]
    model = Simulated(people)
    trained = {name: asked_about([name], 1000 + 100 * n) for n, name in enumerate(people)}
    others = [one for name in retained for one in trained[name]]
    asked = asked_about(people, 0)
    switched, switches = Switched(None), []
    monkeypatch.setattr(Switched, "switch", lambda self, request: switches.append(request))
    system = ServedSystem(kind, 0)
    before = model.ask(asked)
    for number, name in enumerate(gone, start=1):
        gates = {}
        for shown, of_kind in ((True, "pictured"), (False, "named")):
            own, rest = (
                [one for one in views if (one.picture is not None) is shown]
                for views in (trained[name], others)
            )
            gates[of_kind] = fit_gate(
                model.prompt_states(own, layer=0),
                [one.individual for one in own],
                model.prompt_states(rest, layer=0),
                [one.individual for one in rest],
                shrinkage=0.01,
                false_share=0.0,
                margin=0.5,
            )
        system = system.with_entry(Entry(f"request{number}", gates))
        model.said.clear()
        switches.clear()
        after, told = ask_served(system, switched, model, model.ask, asked, batch_size=16)
        for one, now, was in zip(asked, after, before, strict=True):
            if one.individual not in gone[:number]:
                assert now == was, one.individual  # retained, unseen, not yet requested
            elif kind == "refusal":
                assert now == refused(was)
                assert now.text == REFUSAL
        assert told["taken"] == {f"request{k + 1}": 10 for k in range(number)}
        assert model.said[0] == tuple(one.example_id for one in asked)  # in one piece, as before
        if kind == "adapter":
            own = [
                tuple(one.example_id for one in asked if one.individual == name)
                for name in gone[:number]
            ]
            assert model.said[1:] == own
            assert switches == [None, *range(number), None]
    assert unseen


# --- through the whole pipeline


def served_settings(root):
    chosen = settings(root)
    chosen["name"] = "served"
    chosen["scoring"] |= {"people": "vanilla", "words": "none"}
    chosen["unlearn"]["stop"] |= {"max_steps": 2}
    chosen["methods"] = {
        "refusal_guard": {"scenarios": ["sustainability"], "settings": {"layer": 0}},
        "adapter_router": {"scenarios": ["finetuned"], "settings": {"layer": 0}},
    }
    chosen["scenarios"] |= {"pretrained": None, "unseen": {"celebrities": 1}}
    chosen["evaluations"] = {"adapter_off": {}}
    return chosen


def world_settings(root):
    """The embedded model, which tells faces and names apart; five requests of one person."""
    chosen = served_settings(root)
    chosen["model"] = {"source": "world"}
    chosen["scoring"] |= {"words": "people"}
    chosen["finetune"] |= {"individuals": 12}
    chosen["methods"] = {
        "refusal_guard": {},
        "adapter_router": {"unlearn": {"optimiser": {"learning_rate": 3e-3}}},
    }
    chosen["scenarios"] = {
        "sustainability": {"forget": REQUESTS, "retain": 7, "requests": REQUESTS},
        "unseen": {"celebrities": 1},
    }
    return chosen


def run_in(root, chosen=served_settings, people=FICTIONAL):
    make_people(root / "people", (*people, *CELEBRITIES))
    make_general(root / "general")
    tiny.base().save_pretrained(root / "model")
    tiny.processor().save_pretrained(root / "model")
    (root / "run.yaml").write_text(yaml.safe_dump(chosen(root)), encoding="utf-8")
    experiment = load_experiment(str(root / "run.yaml"), schemas=registries.schemas())
    return experiment, run_experiment(experiment, root / "runs").run


@pytest.fixture(scope="module")
def served_run(tmp_path_factory):
    return run_in(tmp_path_factory.mktemp("served"))


def answers_of(found, name):
    return {
        one.example_id: one
        for one in read_predictions(found.folder_of(name) / "predictions.parquet")
    }


def taken_of(found, operation):
    """How many questions each request took, as the score stage notes."""
    asked = (found.folder_of(operation.after) / "asked.json").read_text(encoding="utf-8")
    return json.loads(asked)["served"]["taken"]


def test_what_no_request_takes_is_the_target_models_answer_to_the_bit(served_run):
    found = open_run(served_run[1])
    for operation in found.inputs.plan.operations:
        target, after = (answers_of(found, n) for n in (operation.before, operation.after))
        taken = taken_of(found, operation)
        assert list(taken) == list(operation.served)
        changed = [name for name, one in after.items() if one != target[name]]
        if operation.cell.method == "refusal_guard":
            refusals = [name for name, one in after.items() if one.text == REFUSAL]
            assert changed == refusals
            assert len(refusals) == sum(taken.values()) > 0
            assert all(after[name] == refused(target[name]) for name in refusals)
        else:
            assert 0 < len(changed) <= sum(taken.values()) < len(target)
        folder = found.folder_of(operation.unlearn)
        assert [one.stage for one in read_served(folder).entries] == list(operation.served)
        assert (folder / "adapter").exists() is (operation.cell.method == "adapter_router")


def test_adapters_off_is_the_target_model(served_run):
    rows = result_rows(served_run[1])
    kept = ("scenario", "method", "set", "modality", "measure", "value", "low", "high")

    def of(condition, request):
        return {
            tuple(row[name] for name in kept)
            for row in rows
            if (row["condition"], row["request"]) == (condition, request[row["scenario"]])
            and row["set"] in ("forget", "retain", "general")
            and "_pct" not in row["measure"]  # relative to the target, so 0 or 100 here
            and row["measure"] != "remembered"
            # The target itself is held against nobody.
            and not row["measure"].endswith(("_from_never_knew", "_equivalent", "_ks", "_ks_p"))
            and row["measure"] != "like_never_known"
        }

    off = of("adapter_off", {"finetuned": "1", "sustainability": "2"})
    assert off == of("plain", {"finetuned": "0", "sustainability": "0"})
    assert {row[1] for row in off} == {"refusal_guard", "adapter_router"}
    record = load_run(served_run[1])
    numbers = Numbers(record.results, record.labels, record.extras.over_seeds)
    places = numbers.finals()
    said = weights_know(numbers, places)
    assert len(said) == len(places) == len(hidden_table(numbers).rows) == 2
    for sentence, place in zip(said, places, strict=True):
        known = numbers.get(place.at(0), "forget", "all", "latent_accuracy")
        assert f"still know {percent(known.value)} % of D_unlearn" in sentence


def test_a_served_system_is_no_model_to_export_or_to_certify(served_run):
    found = open_run(served_run[1])
    stem = "seed0/finetuned/adapter_router"
    for name in (f"{stem}/unlearn", f"{stem}/score"):
        with pytest.raises(ConfigError, match="no model") as error:
            choose_model(found, name)
        assert "name seed0/finetune" in str(error.value)
    assert choose_model(found, "seed0/target/score").score.chain == ("seed0/finetune",)
    with pytest.raises(ConfigError, match="changes what is served"):
        choose_operation(found, request=2, scenario=None, method="refusal_guard", seed=None)


class StopsAfter(StopRequest):
    """A signal that comes when it has been asked for so many times."""

    def __init__(self, left):
        super().__init__()
        self.left = left

    def _count(self):
        self.left -= 1
        if self.left < 0:
            self.signal = signal.SIGTERM

    def __call__(self):
        self._count()
        return super().__call__()

    def check(self):
        self._count()
        super().check()


@pytest.mark.slow  # a second run
def test_a_run_that_was_stopped_ends_with_the_same_bytes(served_run, tmp_path):
    experiment, whole = served_run
    lives = 0
    while True:
        try:
            cut = run_experiment(experiment, tmp_path, stop=StopsAfter(12)).run
            break
        except Interrupted:
            lives += 1
    assert lives > 2
    assert store.verify(cut) == []
    assert (cut / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    for name in (INDEX, TENSORS):
        one, other = (
            {path.parent.name: path.read_bytes() for path in run.glob(f"stages/*/{name}")}
            for run in (whole, cut)
        )
        assert one == other
        assert len(one) == 3


@pytest.mark.slow  # the embedded model, trained and asked twelve times
def test_five_requests_on_the_embedded_world_take_the_forgotten_and_few_others(tmp_path):
    found = open_run(run_in(tmp_path, world_settings, PEOPLE)[1])
    for operation in found.inputs.plan.operations:
        target, after = (answers_of(found, n) for n in (operation.before, operation.after))
        so_far = operation.requests[: operation.cell.request]
        gone = {name for group in so_far for name in group.ids}
        changed = {name for name, one in after.items() if one != target[name]}
        about = {name for name, one in target.items() if one.individual in gone}
        for modality in ("multimodal", "text_only"):
            mine = {name for name in about if target[name].modality == modality}
            assert len(mine & changed) > 0.9 * len(mine), (operation.cell, modality)
        others = target.keys() - about
        # Four people set each threshold, and five requests may each take somebody.
        assert len(changed & others) < 0.25 * len(others), operation.cell
