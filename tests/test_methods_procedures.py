"""Procedures with masks, projections and several phases, each against cases done by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

import tiny_models as tiny
from pulse_unlearn.config import LoraSettings, OptimiserSettings, StopSettings, UnlearnSettings
from pulse_unlearn.errors import DataError, Interrupted, MethodError, ModelError
from pulse_unlearn.methods import Activity, AnswerView, Request, build_method, losses
from pulse_unlearn.methods.alkn import largest, open_share
from pulse_unlearn.methods.constraints import RetainNll
from pulse_unlearn.methods.fit import chosen_loss, repeats
from pulse_unlearn.methods.manu import ImportanceWeights, importance
from pulse_unlearn.methods.mmunlearner import saliency_masks
from pulse_unlearn.methods.sine_project import along_sine
from pulse_unlearn.methods.smfa import unopposed
from pulse_unlearn.methods.task_vector import Memorise
from pulse_unlearn.methods.undo import blurred
from pulse_unlearn.models.adapters import AdapterStack, prepare, save_trained
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.training.session import MethodSession, carried
from pulse_unlearn.training.steps import UnlearnSteps
from test_training_session import SETTINGS, applied, model_of, plan, session_of, settings_of

LORA = LoraSettings(rank=2)
B_ROW = "layer.lora_B.trained.weight"
A_ROW = "layer.lora_A.trained.weight"


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder()


def tensor(values):
    return torch.tensor(values)


class Descent:
    """A session of a few numbers: what it measures is told, and training is descent by 1.

    `told` has, by the loss's class, the gradients of each step of a phase trained on it.
    """

    def __init__(self, initial, *, told, fisher=None, history=(), **facts):
        self.now = {name: tensor(value) for name, value in initial.items()}
        self.initial = self.current
        self.told, self.fisher, self.history, self.facts = told, fisher or {}, history, facts
        self.losses, self.skipped = [], None

    @property
    def current(self):
        return {name: value.clone() for name, value in self.now.items()}

    def train(self, loss, *, gradient_hook=None, update_hook=None, term_weights=None, skip=(), **_):
        self.losses.append(loss)
        self.skipped = skip
        name = type(getattr(loss, "parts", [(1, loss)])[0][1]).__name__
        rows = []
        for step in self.told[name]:
            gradients = {key: tensor(value) for key, value in step.items()}
            if term_weights:
                term_weights(rows)
            if gradient_hook:
                gradient_hook(gradients)
            for key, value in gradients.items():
                self.now[key].sub_(value)
            if update_hook:
                update_hook(self.now)
            rows.append({"step": len(rows) + 1})

    def gradients(self, loss, *, batches, squared=False):
        return {name: tensor(v) for name, v in self.fisher[type(loss).__name__].items()}

    def edit(self, tensors):
        for name, value in tensors.items():
            assert self.now[name].shape == value.shape
            self.now[name].copy_(value)

    def activations(self, layers, part, *, batches, above):
        return self.facts["activity"][part]

    @property
    def layers(self):
        return self.facts["layers"]

    def names_in(self, part):
        return self.facts[part]


# --- MMUnlearner


def test_a_number_may_change_where_its_fisher_ratio_reaches_the_threshold():
    forget = {"w": tensor([[4.0, 1.0], [0.0, 2.0]]), B_ROW: tensor([[3.0, 0.0], [1.0, 1.0]])}
    retain = {"w": tensor([[1.0, 4.0], [0.0, 1.0]]), B_ROW: tensor([[0.0, 2.0], [0.0, 9.0]])}
    forget[A_ROW] = retain[A_ROW] = tensor([[1.0]])
    masks = saliency_masks(forget, retain, threshold=1.0)
    assert masks["w"].tolist() == [[True, False], [True, True]]  # 1e-15 over 1e-15 is 1
    assert masks[B_ROW].tolist() == [[True], [False]]  # 3 / 2 and 2 / 9: rows as a whole
    assert A_ROW not in masks
    strict = saliency_masks(forget, retain, threshold=3.0)
    assert strict["w"].tolist() == [[True, False], [False, False]]


def test_under_the_mask_one_step_of_descent_is_the_step_where_it_is_open():
    fisher = {"Memorise": {"w": [4.0, 1.0]}, "RetainNll": {"w": [1.0, 4.0]}}
    session = Descent(
        {"w": [1.0, 1.0]}, told={"GradientDifference": [{"w": [0.5, 0.5]}] * 2}, fisher=fisher
    )
    build_method("mmunlearner", {}).run(session)
    assert session.now["w"].tolist() == [0.0, 1.0]
    closed = Descent({"w": [1.0, 1.0]}, told={}, fisher=fisher)
    with pytest.raises(MethodError, match=r"settings.threshold"):
        build_method("mmunlearner", {"threshold": 5.0}).run(closed)


def fisher_of(session, loss, batches):
    """The mean square of batch gradients, by one batch at a time."""
    parts = [session.gradients(loss, batches=1, first=k) for k in range(batches)]
    return {n: sum(part[n].double().square() for part in parts) / batches for n in parts[0]}


def ratios(session, batches=2):
    forget, retain = (fisher_of(session, loss, batches) for loss in (Memorise(), RetainNll()))
    return {
        name: (of.sum(1) + 1e-15) / (retain[name].sum(1) + 1e-15)
        if ".lora_B." in name
        else (of + 1e-15) / (retain[name] + 1e-15)
        for name, of in forget.items()
    }


DECAYING = OptimiserSettings(learning_rate=5e-3, batch_size=4, micro_batch_size=2, weight_decay=0.5)


def test_whole_tensors_stay_exactly_as_they_are_where_the_mask_is_0(encoder, tmp_path):
    settings = settings_of(update="full").model_copy(update={"optimiser": DECAYING})
    session = session_of(tmp_path / "s", encoder, settings)
    ratio = ratios(session)
    before = session.current
    session.apply(build_method("mmunlearner", {"batches": 2, "threshold": 1.2}))
    held = moved = 0
    for name, now in session.current.items():
        closed, opened = ratio[name] < 1.2 * 0.999, ratio[name] > 1.2 * 1.001
        assert torch.equal(now[closed], before[name][closed])
        held += int(closed.sum())
        moved += int((now[opened] != before[name][opened]).sum())
    assert held > 10_000
    assert moved > 1_000
    naive = session_of(tmp_path / "naive", encoder, settings)
    naive.apply(build_method("grad_diff", {}))
    changed = sum(int((naive.current[n] != before[n])[ratio[n] < 1.2].sum()) for n in before)
    assert changed > 0.9 * held  # what the mask alone has held


def low_rank_changes(model):
    """Module path -> s B A, what an adapter adds to its weight."""
    return {
        name: module.get_delta_weight("trained").detach().clone()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


@pytest.mark.parametrize("adapter", ["fresh", "continued"])
def test_output_rows_of_adapted_weights_stay_exactly_where_the_mask_is_0(
    adapter, encoder, tmp_path
):
    settings = settings_of(adapter=adapter, lora=LORA).model_copy(update={"optimiser": DECAYING})
    session = session_of(tmp_path / "s", encoder, settings)
    ratio = {n: r for n, r in ratios(session).items() if ".lora_B." in n}
    before = low_rank_changes(session.model)
    session.apply(build_method("mmunlearner", {"batches": 2}))
    after = low_rank_changes(session.model)
    held = moved = 0
    for name, rows in ratio.items():
        (path,) = [path for path in before if name.startswith(f"{path}.lora_B.")]
        closed, opened = rows < 0.999, rows > 1.001
        assert torch.equal(after[path][closed], before[path][closed])
        held += int(closed.sum())
        moved += int((after[path][opened] != before[path][opened]).any(1).sum())
    assert held > 50
    assert moved > 50
    naive = session_of(tmp_path / "naive", encoder, settings)
    naive.apply(build_method("grad_diff", {}))
    loose = low_rank_changes(naive.model)
    for name, rows in ratio.items():
        (path,) = [path for path in before if name.startswith(f"{path}.lora_B.")]
        assert not torch.equal(loose[path][rows < 0.999], before[path][rows < 0.999])


# --- MANU


def activity(absolute, frequency, variance, square):
    return Activity(*(tensor(part).double() for part in (absolute, frequency, variance, square)))


def test_importance_compares_the_modalities():
    shown = activity([3.0, 0.0], [0.5, 0.0], [4.0, 0.0], [9.0, 0.0])
    told = activity([1.0, 0.0], [0.5, 0.0], [5.0, 0.0], [1.0, 0.0])
    every = importance(shown, told, ImportanceWeights())
    assert every.tolist() == pytest.approx([2 / 4 + 0 + 3 + math.sqrt(8 / 10), 0])
    chosen = ImportanceWeights(absolute=2, frequency=0, variance=0, root_mean_square=0)
    assert importance(shown, told, chosen).tolist() == pytest.approx([1, 0])
    with pytest.raises(ValidationError, match="weight above 0"):
        ImportanceWeights(absolute=0, frequency=0, variance=0, root_mean_square=0)


def manu_session(activity):
    down = "layers.0.mlp.down_proj.weight"
    return Descent(
        {down: [[1.0] * 4] * 2, "layers.0.other": [1.0], "vision.mlp.down_proj.weight": [[1.0]]},
        told={},
        layers=[(down, "layers.0.other")],
        activity=activity,
    )


def test_manu_zeroes_the_neurons_whose_score_is_highest():
    """I = |m - t| / (m + t) alone: forget (1, .5, 0, .8), retain (1, .1, 1, .2)."""
    layer, ones = "layers.0.mlp.down_proj", [1.0] * 4
    told = {
        "forget": {"multimodal": [2.0, 3.0, 1.0, 9.0], "text_only": [0.0, 1.0, 1.0, 1.0]},
        "retain": {"multimodal": [5.0, 1.1, 3.0, 3.0], "text_only": [0.0, 0.9, 0.0, 2.0]},
    }
    found = {
        part: {m: {layer: activity(z, ones, ones, ones)} for m, z in of.items()}
        for part, of in told.items()
    }
    session = manu_session(found)
    only = {"absolute": 1.0, "frequency": 0.0, "variance": 0.0, "root_mean_square": 0.0}
    build_method("manu", {"share": 0.5, "weights": only}).run(session)
    assert session.now[f"{layer}.weight"].tolist() == [[1.0, 0.0, 1.0, 0.0]] * 2
    assert session.now["vision.mlp.down_proj.weight"].tolist() == [[1.0]]
    del found["retain"]["text_only"]
    with pytest.raises(MethodError, match="no retain example is text_only"):
        build_method("manu", {}).run(manu_session(found))


# --- SMFA


def test_what_the_anchor_opposes_is_dropped_beyond_the_tolerance():
    update, anchor = tensor([3.0, -4.0, 0.0]), tensor([-0.4, 0.3, 5.0])
    # rho is 5 / sqrt(25.25); opposed are the first two, 3 / 0.4 and 4 / 0.3 anchors long.
    kept = unopposed(update, anchor, tolerance=10.0)
    assert kept.tolist() == [3.0, 0.0, 0.0]
    assert unopposed(update, anchor, tolerance=7.0).tolist() == [0.0, 0.0, 0.0]
    assert unopposed(update, anchor, tolerance=14.0).tolist() == update.tolist()
    assert unopposed(update, -anchor, tolerance=0.0).tolist() == update.tolist()
    assert unopposed(update, tensor([0.0] * 3), tolerance=0.0).tolist() == update.tolist()


def test_smfa_adds_what_is_left_of_the_refusal_to_where_it_began():
    session = Descent(
        {"w": [1.0, 1.0]},
        told={"Refuse": [{"w": [-3.0, 4.0]}], "RetainNll": [{"w": [3.0, 4.0]}]},
    )
    build_method("smfa", {"tolerance": 0.5}).run(session)
    # (3, -4), of which the anchor (-3, -4) opposes the first.
    assert session.now["w"].tolist() == [1.0, -3.0]
    refused = build_method("smfa", {}).problems(UnlearnSettings())
    assert [problem.where for problem in refused] == ["unlearn.update"]


# --- UNDO


def test_matrices_are_mixed_with_noise_of_a_fresh_layer_and_vectors_are_not():
    """Mutation: noise of variance 1, or of the tensor's own."""
    weights = {"w": torch.full((300, 100), 2.0), "v": torch.full((100,), 2.0)}
    seeded = torch.Generator().manual_seed(1)
    found = blurred(weights, seeded, noise=0.25, strength=2.0)
    assert [*found] == ["w"]
    assert found["w"].mean().item() == pytest.approx(1.5, abs=0.001)
    assert found["w"].std().item() == pytest.approx(0.25 * 2.0 * (2 / 400) ** 0.5, rel=0.02)
    shrunk = blurred(weights, seeded, noise=0.25, strength=0.0)
    assert torch.equal(shrunk["w"], torch.full((300, 100), 1.5))
    assert torch.equal(weights["w"], torch.full((300, 100), 2.0))


class Phases(Descent):
    """Notes how long each phase is, whether its rule may end it, and where it begins."""

    max_steps = 10

    def generator(self, name):
        return torch.Generator().manual_seed(0)

    def train(self, loss, *, steps=None, stop=True, **more):
        self.phases = [*getattr(self, "phases", ()), (steps, stop, self.current["w"].tolist())]
        super().train(loss, **more)


def test_undo_unlearns_blurs_and_teaches_again_within_its_steps():
    session = Phases({"w": [[1.0, 1.0]], "v": [1.0]}, told={"DrawnAnswers": [{"w": [[0.5, 0.0]]}]})
    method = build_method("undo", {"noise": 0.5, "strength": 0.0, "share": 0.3})
    method.run(session)
    assert session.phases == [(3, True, [[1.0, 1.0]]), (7, False, [[0.25, 0.5]])]
    assert session.now["w"].tolist() == [[-0.25, 0.5]]
    assert session.now["v"].tolist() == [1.0]
    assert method.needs == build_method("pulse", {"retain_weight": 4.0}).needs
    told = [problem.where for problem in method.problems(UnlearnSettings(forms="short_answer"))]
    assert told == ["unlearn.update", "unlearn.forms"]


# --- SineProject


def test_an_update_along_the_sine_is_the_chain_rule_and_stops_at_its_end():
    start = tensor([0.5, 0.5, 0.5, 0.5]).double()
    before = start + tensor([0.0, 0.05, 0.1, 0.0]).double()
    after = before + tensor([0.01, 0.01, -0.01, 9.0]).double()
    found = along_sine(start, before, after, bound=0.1) - start
    by_hand = [
        0.1 * math.sin(0.1),
        0.1 * math.sin(math.pi / 6 + 0.1 * math.cos(math.pi / 6)),
        0.1,  # where the sine ends its slope is 0
        0.1,
    ]
    assert found.tolist() == pytest.approx(by_hand, abs=1e-6)


def test_the_sine_is_the_plain_update_to_first_order():
    start = torch.zeros(3, dtype=torch.double)
    for size in (1e-1, 1e-2, 1e-3):
        update = size * tensor([1.0, -2.0, 0.5]).double()
        found = along_sine(start, start, update, bound=1.0)
        assert (found - update).abs().max() < 2 * size**3 + 1e-7


def test_the_projector_stays_in_its_bound_and_nothing_else_does(encoder, tmp_path):
    wild = OptimiserSettings(
        learning_rate=0.5, batch_size=4, micro_batch_size=2, weight_decay=1.0, clip_norm=None
    )
    settings = settings_of("sine_project").model_copy(update={"optimiser": wild})
    session = session_of(tmp_path / "s", encoder, settings)
    session.apply(build_method("sine_project", {"bound": 0.01}))
    moved = {n: (now - session.initial[n]).abs().max() for n, now in session.current.items()}
    bounded = set(session.names_in("projector"))
    assert bounded
    assert all("multi_modal_projector" in name for name in bounded)
    assert all(value <= 0.01 * (1 + 1e-3) for n, value in moved.items() if n in bounded)
    assert max(value for n, value in moved.items() if n in bounded) > 0.009
    assert min(value for n, value in moved.items() if n not in bounded) > 0.01


def test_steps_within_the_bound_add_up_by_hand():
    session = Descent(
        {"p": [0.0], "w": [0.0]},
        told={"NegativePreference": [{"p": [-0.5], "w": [-0.5]}, {"p": [0.25], "w": [0.25]}]},
        projector=("p",),
    )
    build_method("sine_project", {"bound": 1.0}).run(session)
    # d = 0.5, then 0.5 - 0.25 cos 0.5.
    assert session.now["p"].item() == pytest.approx(math.sin(0.5 - 0.25 * math.cos(0.5)), abs=1e-6)
    assert session.now["w"].item() == pytest.approx(0.25)
    refused = build_method("sine_project", {}).problems(UnlearnSettings(scope="llm"))
    assert [problem.where for problem in refused] == ["unlearn.update", "unlearn.scope"]


# --- ALKN


def test_the_soft_target_lies_between_reference_and_label():
    p0, p = tensor([0.8, 0.2]).double(), tensor([0.6, 0.4]).double()
    labels, mask = tensor([[0]]), tensor([[True]])
    views = [AnswerView(one.log().view(1, 1, 2), labels, mask) for one in (p, p0)]
    found = losses.softened_nll(*views, sharpness=1.5, known=0.8)
    # At 0.8 the weight is 1/2, the target (0.9, 0.1).
    assert found.item() == pytest.approx(-0.9 * math.log(0.6) - 0.1 * math.log(0.4))
    other = [replace(one, labels=tensor([[1]])) for one in views]
    w = 1 / (1 + math.exp(-1.5 * (0.2 - 0.8)))
    by_hand = -(1 - w) * 0.8 * math.log(0.6) - (w + (1 - w) * 0.2) * math.log(0.4)
    assert losses.softened_nll(*other, sharpness=1.5, known=0.8).item() == pytest.approx(by_hand)


def test_open_entries_are_the_largest_gradients_and_fall_to_a_half():
    found = [open_share(0.8, step) for step in (0, 1, 5, 50)]
    assert found == pytest.approx([0.8, 0.72, 0.4, 0.4])
    gradient = tensor([[0.0, -3.0], [1.0, 2.0]])
    assert largest(gradient, 0.5).tolist() == [[False, True], [False, True]]
    assert largest(gradient, 0.01).sum() == 1
    assert largest(torch.zeros(3), 0.5).all()


@pytest.mark.parametrize("earlier", [0, 2])
def test_alkn_negates_what_it_learned_slowly_and_fast(earlier):
    session = Descent(
        {"w": [1.0, 1.0]},
        told={"SoftMemorise": [{"w": [-0.5, -0.1]}, {"w": [-0.1, -0.5]}]},
        history=[Request(f"r{k}", ("p",)) for k in range(earlier)],
    )
    settings = {"scale": 2.0, "decay": 0.5, "open_share": 0.5, "slow": 0.1}
    build_method("alkn", settings).run(session)
    # One entry is open in each step: 0.5 + 0.01 learned of either.
    learned, coefficient = 0.51, 2.0 * 0.5**earlier
    assert session.now["w"].tolist() == pytest.approx([1 - coefficient * learned] * 2)
    problems = [*build_method("alkn", {}).problems(settings_of(adapter="continued"))]
    assert [problem.where for problem in problems] == ["unlearn.adapter"]


def test_alkn_opens_less_with_every_step():
    gradients = [0.1, 0.2, 0.3, 0.4]
    session = Descent(
        {"w": [0.0] * 4}, told={"SoftMemorise": [{"w": [-one for one in gradients]}] * 6}
    )
    build_method("alkn", {"open_share": 1.0, "slow": 0.0}).run(session)
    # Shares 1, .9, .8, .7, .6, .5 of four: 4, 4, 3, 3, 2, 2 entries are open.
    steps = [2, 4, 6, 6]
    learned = [one * count for one, count in zip(gradients, steps, strict=True)]
    assert session.now["w"].tolist() == pytest.approx([-one for one in learned])


# --- FIT, and what it asks of a session


def test_a_question_repeats_another_whose_direction_it_has():
    earlier = tensor([[1.0, 0.0], [0.0, 2.0]])
    own = {"same": tensor([5.0, 0.0]), "near": tensor([0.1, 1.0]), "new": tensor([-1.0, 0.0])}
    assert repeats(own, earlier, similarity=0.95) == ["same", "near"]
    assert repeats(own, earlier, similarity=0.999) == ["same"]
    assert repeats(own, None, similarity=0.1) == []
    assert repeats({"zero": torch.zeros(2)}, earlier, similarity=0.1) == []


def test_the_loss_is_the_one_whose_threshold_importance_reaches():
    graded = [
        {"at_least": 3.0, "loss": {"method": "ga"}},
        {"at_least": 0.0, "loss": {"method": "npo"}},
        {"at_least": 1.0, "loss": {"method": "grad_diff"}},
    ]
    method = build_method("fit", {"losses": graded})
    for weight, expected in ((0.5, "NegativePreference"), (1.0, "GradientDifference")):
        ((_, loss),) = chosen_loss(method.losses, weight).parts
        assert type(loss).__name__ == expected
    ((_, loss),) = chosen_loss(method.losses, math.inf).parts
    assert type(loss).__name__ == "GradientAscent"
    with pytest.raises(ValidationError, match="one must begin at 0"):
        build_method("fit", {"losses": graded[:1]})
    with pytest.raises(ValidationError, match="must differ"):
        build_method("fit", {"losses": [graded[1], graded[1]]})
    assert [p.where for p in method.problems(UnlearnSettings(scope="projector"))] == [
        "unlearn.scope"
    ]


def test_fit_trains_only_the_layer_that_the_forget_answers_miss_most(encoder, tmp_path):
    settings = settings_of(update="full", scope="projector+llm").model_copy(
        update={"optimiser": DECAYING}
    )
    session = session_of(tmp_path / "s", encoder, settings)
    whole = session.mean_loss(Memorise(), batches=2)
    changes = [
        abs(session.mean_loss(Memorise(), batches=2, without_layer=k) - whole) for k in range(2)
    ]
    most = changes.index(max(changes))
    session.apply(build_method("fit", {"top_k": 1, "batches": 2}))
    for name, now in session.current.items():
        alone = torch.equal(now, session.initial[name])
        assert alone == (name not in session.layers[most]), name


def test_a_layer_left_out_is_a_model_without_it(encoder, tmp_path):
    session = session_of(tmp_path / "s", encoder, settings_of(update="full"))
    packed = session_of(tmp_path / "p", encoder, settings_of(update="full"), packed=True)
    assert isinstance(packed.backend, Packed)
    found = [session.mean_loss(Memorise(), batches=2, without_layer=k) for k in (0, 1)]
    again = [packed.mean_loss(Memorise(), batches=2, without_layer=k) for k in (0, 1)]
    assert again == pytest.approx(found, rel=1e-4)
    with pytest.raises(ModelError, match="no such layer"):
        session.mean_loss(Memorise(), batches=1, without_layer=2)
    with pytest.raises(ValueError, match="no reference"):
        session.mean_loss(build_method("npo", {}), batches=1, without_layer=0)
    language_model = session.model.model.language_model
    for left_out, expected in enumerate(found):
        kept = language_model.layers
        language_model.layers = torch.nn.ModuleList([kept[1 - left_out]])
        try:
            alone = session.mean_loss(Memorise(), batches=2)
        finally:
            language_model.layers = kept
        assert alone == pytest.approx(expected, rel=1e-5)
    assert found[0] != pytest.approx(found[1], rel=1e-3)


def test_an_embedding_is_the_mean_state_where_a_questions_answers_are_decided(encoder, tmp_path):
    session = session_of(tmp_path / "s", encoder, settings_of(update="full"))
    found = session.embeddings("forget")
    asked = plan(1).first_epoch("forget")
    assert found.keys() == {one.question_id for one in asked}
    one = asked[0]
    with torch.no_grad():
        view = session.backend.answer_log_probs([one], tokens="with_end", hidden_layer=-1)
    expected = losses.hidden_of(view)[0][view.mask[0]].mean(0)
    torch.testing.assert_close(found[one.question_id], expected, atol=1e-4, rtol=1e-3)
    some = session.embeddings("retain", batches=1)
    assert some.keys() == {one.question_id for one in plan(1)[0].retain}


def test_steps_without_some_questions_ask_the_others_in_their_place():
    steps = plan(4)
    every = {one.question_id for one in steps.first_epoch("forget")}
    rest = steps.without(["q0", "q1"])
    asked = {one.question_id for k in range(4) for one in rest[k].forget}
    assert asked == every - {"q0", "q1"}
    assert [rest[k].retain for k in range(4)] == [steps[k].retain for k in range(4)]
    assert {len(rest[k].forget) for k in range(4)} == {4}
    with pytest.raises(DataError, match="nothing to train on"):
        steps.without(every)


class Skipping(MethodSession):
    """Notes what a procedure has left out of its forget batches."""

    skipped: tuple = ()

    def train(self, loss, *, skip=(), **knobs):
        self.skipped = tuple(skip)
        super().train(loss, skip=skip, **knobs)


def test_fit_leaves_out_what_repeats_earlier_requests(encoder, tmp_path):
    settings = settings_of("fit", lora=LORA)
    method = build_method("fit", SETTINGS["fit"])
    first = session_of(tmp_path / "1", encoder, settings)
    first.apply(method)
    state = carried(tmp_path / "1")
    assert state["embeddings"].shape == (6, 32)
    # The same questions again, asked of the same model: nothing is left to do.
    second = session_of(tmp_path / "2", encoder, settings, state=state)
    outcome = second.apply(method)
    assert outcome.steps == 0
    assert all(torch.equal(now, second.initial[n]) for n, now in second.current.items())
    assert torch.equal(carried(tmp_path / "2")["embeddings"], state["embeddings"])
    # Three of them, and three whose pictures are new.
    third = session_of(tmp_path / "3", encoder, settings, state=state, kind=Skipping)
    mixed = [*tiny.letters(3), *(tiny.example(k, words=5, shown=True) for k in (51, 53, 55))]
    others = (lambda epoch: tiny.letters(6, first=100), lambda epoch: tiny.letters(4, first=200))
    third.plan = lambda steps: UnlearnSteps(
        lambda epoch: mixed, *others, batch_size=4, general_share=0.25, steps=steps, seed=1
    )
    third.apply(method)
    assert set(third.skipped) == {"q0", "q1", "q2"}
    assert len(carried(tmp_path / "3")["embeddings"]) == 9


# --- sequences, and interruptions


@pytest.mark.parametrize(
    ("method", "stop_at"), [("smfa", 6), ("undo", 3), ("alkn", 2), ("sine_project", 2)]
)
def test_one_cut_off_within_a_phase_ends_as_if_it_had_not_been(method, stop_at, encoder, tmp_path):
    _, expected, outcome = applied(tmp_path / "whole", encoder, method)
    assert outcome.steps == (8 if method == "smfa" else 4)
    with pytest.raises(Interrupted):
        applied(tmp_path / "cut", encoder, method, stop_at=stop_at)
    _, found, again = applied(tmp_path / "cut", encoder, method)
    assert again == outcome
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def asks(request):
    """Step data of a request: a person's questions of its own, some pictured."""

    def of(first, count):
        return lambda epoch: tiny.letters(count, first=first)

    def planned(steps):
        data = (of(1 + 17 * request, 6), of(1000, 6), of(2000, 4))
        return UnlearnSteps(*data, batch_size=4, general_share=0.25, steps=steps, seed=1)

    return planned


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("mmunlearner", {}),
        pytest.param("mmunlearner", {"adapter": "continued"}, marks=pytest.mark.slow),
        pytest.param("mmunlearner", {"update": "full"}, marks=pytest.mark.slow),
        ("manu", {"update": "full"}),
        pytest.param("smfa", {"update": "full"}, marks=pytest.mark.slow),
        pytest.param(
            "sine_project", {"update": "full", "scope": "projector+llm"}, marks=pytest.mark.slow
        ),
        pytest.param("alkn", {}, marks=pytest.mark.slow),
        pytest.param("alkn", {"update": "full"}, marks=pytest.mark.slow),
        ("fit", {"update": "full"}),
        pytest.param("fit", {"adapter": "continued"}, marks=pytest.mark.slow),
        pytest.param("fit", {}, marks=pytest.mark.slow),  # the other update in five requests
    ],
)
def test_five_requests_one_after_the_other(method, changes, encoder, tmp_path):
    settings = settings_of(method, lora=LORA, **changes).model_copy(
        update={"stop": StopSettings(max_steps=2)}
    )
    state, history, left = {}, [], []
    made = model_of(settings) if settings.update == "full" else None
    for number in range(5):
        folder = tmp_path / f"request{number}"
        if settings.update == "lora":
            goes_on = settings.adapter == "continued" and left
            chain = () if goes_on else tuple(left)
            stack = AdapterStack(chain=chain, start_from=left[-1] if goes_on else None)
            made = prepare(tiny.base(), stack, how="merged", fresh=tiny.fresh("llm", lora=LORA))
        session = session_of(folder, encoder, settings, made=made, state=state, history=history)
        session.plan = asks(number)
        outcome = session.apply(build_method(method, SETTINGS.get(method, {})))
        assert outcome.stopped_by in ("max_steps", "procedure")
        assert outcome.skipped_steps == 0
        now = session.current
        assert all(torch.isfinite(value).all() for value in now.values())
        assert any(not torch.equal(now[n], value) for n, value in session.initial.items())
        save_trained(made.model, folder / "update", base="tiny")
        left.append(folder / "update")
        state = carried(folder)
        history = [*history, Request(f"request{number}", (f"p{number}",))]
    if method == "fit":
        assert 6 <= len(state["embeddings"]) <= 30
