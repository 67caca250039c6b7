"""Methods put together in an experiment file, and the constraints they are put together from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

import tiny_models as tiny
from pulse_unlearn.config import LoraSettings, UnlearnSettings
from pulse_unlearn.methods import METHODS, Needs, build_method
from pulse_unlearn.methods.composed import LossChoice, WeightedSum, together
from pulse_unlearn.methods.constraints import (
    L1,
    Ewc,
    L2Previous,
    OrthogonalLora,
    Projection,
    restrained,
)
from pulse_unlearn.training.session import carried
from test_training_session import model_of, session_of, settings_of

LORA = LoraSettings(rank=2)


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder()


class Given:
    """A session of two numbers whose gradients are told beforehand."""

    def __init__(self, initial, *, gradients=(), state=None):
        self.initial = {name: torch.tensor(value) for name, value in initial.items()}
        self.current = dict(self.initial)
        self.state = state or {}
        self.told = [{n: torch.tensor(v) for n, v in one.items()} for one in gradients]
        self.carried, self.hooks = {}, {}

    def gradients(self, loss, *, batches, squared=False, first=0):
        chosen = self.told[first : first + batches]
        return {
            name: sum((g[name].square() if squared else g[name]) for g in chosen) / batches
            for name in self.initial
        }

    def train(self, loss, **hooks):
        self.hooks = hooks

    def carry(self, tensors):
        self.carried = dict(tensors)


def penalty_of(constraint, session, now):
    """Value and gradient of a penalty at some weights."""
    hooks = constraint.hooks(session, None, session.state)
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in now.items()}
    value = hooks.penalty(tensors)
    value.backward()
    return value.item(), {name: tensor.grad.tolist() for name, tensor in tensors.items()}


# --- by hand


def test_l1_is_the_sum_of_absolute_values():
    value, gradient = penalty_of(L1(weight=0.5), Given({}), {"a": [1.0, -2.0], "b": [-3.0]})
    assert value == pytest.approx(0.5 * 6)
    assert gradient == {"a": [0.5, -0.5], "b": [-0.5]}


def test_l2_is_the_squared_distance_from_the_beginning():
    session = Given({"a": [1.0, 1.0]})
    value, gradient = penalty_of(L2Previous(weight=0.5), session, {"a": [3.0, 0.0]})
    assert value == pytest.approx(0.25 * (4 + 1))
    assert gradient == {"a": [1.0, -0.5]}


def test_ewc_weighs_the_distance_with_the_mean_squared_gradient():
    session = Given({"a": [1.0, 1.0]}, gradients=[{"a": [2.0, 0.0]}, {"a": [0.0, 4.0]}])
    # Fisher (2, 8).
    value, gradient = penalty_of(Ewc(weight=1.0, batches=2), session, {"a": [2.0, 3.0]})
    assert value == pytest.approx(0.5 * (2 * 1 + 8 * 4))
    assert gradient == {"a": [2.0, 16.0]}
    assert Ewc(batches=2).carries(session, None, {}) == {}


def test_ewc_of_requests_adds_up_and_restrains_from_the_second_on():
    one = Ewc(weight=1.0, batches=1, protects="requests")
    session = Given({"a": [0.0, 0.0]}, gradients=[{"a": [2.0, 1.0]}])
    assert one.hooks(session, None, {}).penalty is None
    first = one.carries(session, None, {})
    second = one.carries(session, None, first)
    assert second["a"].tolist() == [8.0, 2.0]
    value, _ = penalty_of(one, Given({"a": [0.0, 0.0]}, state=second), {"a": [1.0, 1.0]})
    assert value == pytest.approx(0.5 * (8 + 2))


def test_orthogonality_is_the_squared_overlap_with_every_earlier_a():
    one = OrthogonalLora(weight=2.0)
    name, other = "layer.lora_A.trained.weight", "layer.lora_B.trained.weight"
    session = Given({name: [[1.0, 0.0, 0.0]], other: [[1.0], [1.0]]})
    first = one.carries(session, None, {})
    assert first.keys() == {name}
    session.current = {name: torch.tensor([[0.0, 2.0, 0.0]])}
    state = one.carries(session, None, first)
    assert state[name].tolist() == [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
    now = {name: [[3.0, 1.0, 5.0]], other: [[9.0], [9.0]]}
    hooks = one.hooks(session, None, state)
    assert hooks.penalty({k: torch.tensor(v) for k, v in now.items()}) == pytest.approx(
        2.0 * (3.0**2 + 2.0**2)
    )


def test_projection_keeps_the_leading_directions_of_the_batches():
    told = [{"a": [3.0, 0.0], "b": [0.0]}, {"a": [0.0, 1.0], "b": [0.0]}]
    start = {"a": [0.0, 0.0], "b": [0.0]}
    mean = Projection(batches=2).carries(Given(start, gradients=told), None, {})
    torch.testing.assert_close(mean["0000"], torch.tensor([3.0, 1.0, 0.0]) / 10**0.5)
    leading = Projection(batches=2, directions=2)
    state = leading.carries(Given(start, gradients=told), None, {})
    assert [vector.abs().round().tolist() for vector in state.values()] == [[1, 0, 0], [0, 1, 0]]
    # The same again adds nothing; a new one adds what is new of it.
    again = Given(start, gradients=[told[0], {"a": [1.0, 0.0], "b": [2.0]}])
    grown = leading.carries(again, None, state)
    assert len(grown) == 3
    assert grown["0002"].abs().tolist() == pytest.approx([0, 0, 1], abs=1e-6)
    gradients = {"a": torch.tensor([5.0, 6.0]), "b": torch.tensor([7.0])}
    leading.hooks(Given(start), None, state).gradient(gradients)
    assert gradients["a"].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert gradients["b"].tolist() == [7.0]


def test_each_constraint_keeps_its_own_state_and_all_work_in_one_step():
    parts = {"ewc": Ewc(weight=1.0, batches=1, protects="requests"), "projection": Projection()}
    told = [{"a": [1.0, 0.0]}] * 4
    first = Given({"a": [0.0, 0.0]}, gradients=told)
    restrained(first, None, parts)
    assert first.hooks["penalty"] is None
    assert first.hooks["gradient_hook"] is None
    assert first.carried.keys() == {"ewc/a", "projection/0000"}
    second = Given({"a": [0.0, 0.0]}, gradients=told, state=first.carried)
    restrained(second, None, parts | {"l1": L1(weight=1.0)})
    value = second.hooks["penalty"]({"a": torch.tensor([2.0, 3.0])})
    assert value == pytest.approx(0.5 * 4 + 5)
    gradients = {"a": torch.tensor([4.0, 4.0])}
    second.hooks["gradient_hook"](gradients)
    assert gradients["a"].tolist() == [0.0, 4.0]


# --- put together


WRONG = [
    ({"forget": []}, "forget"),
    ({"forget": [{"method": "npp"}]}, "did you mean 'npo'"),
    ({"forget": [{"method": "npo", "settings": {"betta": 1}}]}, "betta"),
    ({"forget": [{"method": "task_vector"}]}, "is a procedure and no loss"),
    ({"forget": [{"method": "composed"}]}, "is a procedure and no loss"),
    ({"forget": [{"method": "dpo"}, {"method": "idk"}]}, "option and refusal"),
    (
        {
            "forget": [{"method": "rmu", "settings": {"layer": 1}}],
            "retain": [{"term": "l2_hidden", "layer": 0}],
        },
        "one kind of layers",
    ),
    ({"forget": [{"method": "rmu"}], "retain": [{"term": "kl"}]}, "hidden states or probabilities"),
    ({"retain": [{"term": "kll"}]}, "kll"),
    ({"regularisers": [{"kind": "l1"}, {"kind": "l1"}]}, "named twice: l1"),
    ({"regularisers": [{"kind": "l3"}]}, "l3"),
    ({"gradients": [{"directions": 0}]}, "directions"),
]


@pytest.mark.parametrize(("settings", "told"), WRONG, ids=[told for _, told in WRONG])
def test_what_does_not_fit_together_is_told(settings, told):
    with pytest.raises(ValidationError, match=told):
        METHODS.get("composed")(**settings)


def test_settings_that_parts_do_not_work_with_are_told():
    method = build_method(
        "composed",
        {
            "regularisers": [{"kind": "orthogonal_lora"}],
            "gradients": [{"directions": 9}],
        },
    )
    found = [(p.where, p.got) for p in method.problems(UnlearnSettings(adapter="continued"))]
    assert found == [("unlearn.adapter", "continued"), ("settings", "9 directions")]
    found = [(p.where, p.got) for p in method.problems(UnlearnSettings(update="full"))]
    assert found[0] == ("unlearn.update", "full")
    ewc = build_method("ewc", {"protects": "requests"})
    assert [p.got for p in ewc.problems(UnlearnSettings())] == ["fresh"]
    assert list(build_method("ewc", {}).problems(UnlearnSettings())) == []


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("composed", {"forget": [{"method": "levelled"}]}),
        ("ewc", {"loss": {"method": "levelled"}}),
        ("mmunlearner", {"loss": {"method": "levelled"}}),
        ("adapter_router", {"loss": {"method": "levelled"}}),
        ("fit", {"losses": [{"loss": {"method": "levelled"}}]}),
        ("safe_eraser", {"loss": {"method": "levelled"}}),
    ],
)
def test_what_a_loss_inside_refuses_is_told(method, settings):
    built = build_method(method, settings)
    assert [p.where for p in built.problems(UnlearnSettings(forms="both"))] == ["unlearn.forms"]
    assert list(built.problems(UnlearnSettings())) == []


def test_needs_are_those_of_all_parts():
    wanted = [
        Needs(forget_reference="answer"),
        Needs(retain=True, forget_reference="distribution", alternative="refusal"),
        Needs(retain=True, retain_reference="hidden", hidden_layer=3),
    ]
    assert together(wanted) == Needs(
        retain=True,
        forget_reference="distribution",
        retain_reference="hidden",
        alternative="refusal",
        hidden_layer=3,
    )
    assert build_method("ewc", {"loss": {"method": "ga"}}).needs.retain
    assert not build_method("l2_previous", {"loss": {"method": "ga"}}).needs.retain


def test_terms_of_the_same_name_stay_apart_in_the_log():
    class One:
        needs = Needs()

        def terms(self, views):
            return build_method("ga", {}).terms(views)

    views = SimpleNamespace(forget=_view())
    terms = WeightedSum(((2.0, One()), (0.5, One()))).terms(views)
    assert [(term.name, term.weight) for term in terms] == [("ascent", 2.0), ("ascent_2", 0.5)]


def _view():
    from pulse_unlearn.methods import AnswerView

    torch.manual_seed(0)
    said = torch.randn(2, 3, 5).log_softmax(-1)
    return AnswerView(said, torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.bool))


def trained(folder, encoder, method, settings, **changes):
    session = session_of(folder, encoder, settings_of(lora=LORA, **changes))
    session.apply(build_method(method, settings))
    return dict(session.current)


def test_npo_with_a_retain_term_is_the_same_put_together_or_whole(encoder, tmp_path):
    whole = trained(tmp_path / "a", encoder, "npo", {"beta": 0.5, "retain_weight": 0.25})
    parts = {
        "forget": [{"method": "npo", "settings": {"beta": 0.5}}],
        "retain": [{"term": "nll", "weight": 0.25}],
    }
    put = trained(tmp_path / "b", encoder, "composed", parts)
    assert all(torch.equal(whole[name], put[name]) for name in whole)


@pytest.mark.parametrize("term", ["kl", "kl_reverse", "js", "l2_hidden"])
def test_every_retain_term_is_zero_at_the_reference_and_grows(term, encoder, tmp_path):
    settings = settings_of(lora=LORA)
    session = session_of(tmp_path / "s", encoder, settings)
    outcome = session.apply(build_method("composed", {"retain": [{"term": term, "layer": 0}]}))
    values = [row[f"retain_{term}"] for row in outcome.rows]
    assert values[0] == pytest.approx(0, abs=1e-5)
    assert values[-1] > 1e-6


FIVE = {
    "forget": [{"method": "npo", "settings": {"beta": 0.5}}],
    "retain": [{"term": "kl"}],
    "regularisers": [{"kind": "ewc", "protects": "requests", "batches": 1}],
    "gradients": [{"batches": 2, "directions": 2}],
}


def test_five_requests_of_npo_kl_ewc_and_projection_need_no_python(encoder, tmp_path):
    settings = settings_of(lora=LORA, adapter="continued")
    made, method, state = model_of(settings), build_method("composed", FIVE), {}
    penalties = []
    for number in range(5):
        folder = tmp_path / f"request{number}"
        session = session_of(folder, encoder, settings, made=made, state=state)
        outcome = session.apply(method)
        penalties.append([row.get("penalty") for row in outcome.rows])
        state = carried(folder)
    assert penalties[0] == [None] * 4
    assert penalties[4][0] == 0  # where it begins nothing has moved
    assert penalties[4][-1] > 0
    assert sum(name.startswith("projection/") for name in state) == 10


@pytest.mark.slow  # six trainings
def test_orthogonal_adapters_overlap_less_than_free_ones(encoder, tmp_path):
    overlaps = {}
    for weight in (0.0, 3000.0):
        method, state = build_method("orthogonal_lora", {"weight": weight}), {}
        for number in range(3):
            folder = tmp_path / f"{weight}-{number}"
            session = session_of(folder, encoder, settings_of(lora=LORA), state=state)
            session.apply(method)
            earlier, state = state, carried(folder)
        overlaps[weight] = sum(
            float((earlier[name] @ state[name][-2:].T).square().sum()) for name in earlier
        )
    assert overlaps[3000.0] < 0.9 * overlaps[0.0]


def test_a_loss_choice_says_what_it_may_be():
    with pytest.raises(ValidationError, match="ga_klr"):
        LossChoice(method="gradient_projection")
