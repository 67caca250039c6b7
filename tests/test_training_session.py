"""Sessions: what procedures may do, that they resume bit for bit, and what each method changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny_models as tiny
from method_cases import OTHER_FORMS, costly
from pulse_unlearn.config import LoraSettings, OptimiserSettings, StopSettings, UnlearnSettings
from pulse_unlearn.data.alternatives import REFUSALS, with_alternative
from pulse_unlearn.errors import DataError, Interrupted, MethodError, ModelError
from pulse_unlearn.methods import (
    METHODS,
    Needs,
    Procedure,
    Term,
    Views,
    build_method,
    goes_by_steps,
    losses,
)
from pulse_unlearn.models.adapters import AdapterStack, prepare, prepare_full
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.models.served import INDEX, TENSORS
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.loop import Watch
from pulse_unlearn.training.objectives import Unlearning
from pulse_unlearn.training.references import References
from pulse_unlearn.training.session import STATE, MethodSession, carried
from pulse_unlearn.training.steps import UnlearnSteps

STEPS = 4
SETTINGS = {
    "rmu": {"layer": -1, "scale": 2.0},
    "dpo": {"beta": 0.5, "retain_weight": 0.5},
    "npo": {"beta": 0.5, "retain_weight": 0.5},
    "manu": {"share": 0.1, "batches": 2},
    "mmunlearner": {"batches": 2},
    "sine_project": {"bound": 0.01},
    "fit": {"top_k": 1, "batches": 2},
    "task_vector": {"scale": 2.0},
    "adapter_router": {"layer": 0},
    "refusal_guard": {"layer": 0},
    **OTHER_FORMS,
}
UPDATES = {
    "manu": {"update": "full"},
    "smfa": {"update": "full"},
    "undo": {"update": "full"},
    "sine_project": {"update": "full", "scope": "projector+llm"},
    "gradient_projection": {"adapter": "continued"},
}


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder()


def settings_of(method="ga", **changes):
    usual = {
        "scope": "llm",
        "answer_tokens": "with_end",
        "lora": LoraSettings(rank=2, alpha=4.0, dropout=0.1),
    }
    return UnlearnSettings(
        optimiser=OptimiserSettings(learning_rate=2e-3, batch_size=4, micro_batch_size=2),
        stop=StopSettings(max_steps=STEPS),
        **{**usual, **UPDATES.get(method, {}), **changes},
    )


def plan(steps, *, people=True, share=0.25):
    def epoch(first, count):
        return lambda number: [
            replace(one, example_id=f"{one.example_id}@{number}")
            for one in tiny.letters(count, first=first)
        ]

    return UnlearnSteps(
        epoch(0, 6),
        epoch(100, 6) if people else None,
        epoch(200, 4),
        batch_size=4,
        general_share=share,
        steps=steps,
        seed=1,
    )


def views(part, epochs):
    """Two people to forget, four to retain, and general questions, by picture and by name."""
    first, people = (0, 2) if part == "forget" else (100, 4)
    found = [
        replace(one, example_id=f"{one.example_id}@{number}", individual=f"p{first + k % people}")
        for number in range(epochs)
        for k, one in enumerate(tiny.letters(4 * people, first=first))
    ]
    return found + ([] if part == "forget" else tiny.letters(2, first=200))


def model_of(settings, *, seed=6):
    if settings.update == "full":
        stack = AdapterStack(keep_reference=True)
        return prepare_full(tiny.base(), stack, family=tiny.LLAVA, scope=settings.scope)
    made = prepare(
        tiny.base(), AdapterStack(), how="merged", fresh=tiny.fresh("llm", lora=settings.lora)
    )
    if seed and settings.adapter == "continued":
        tiny.randomise(made.model, seed=seed)
    return made


def session_of(
    folder,
    encoder,
    settings,
    *,
    stop_at=None,
    made=None,
    packed=False,
    kind=MethodSession,
    **more,
):
    folder.mkdir(exist_ok=True)
    made = made or model_of(settings)
    backend = Packed(made.model, encoder, budget=64) if packed else Plain(made.model, encoder)
    done = []
    watch = Watch(
        folder=folder / "checkpoints",
        checkpoint_seconds=0,
        on_step=lambda step, total, row: done.append(step),
        should_stop=lambda: stop_at is not None and len(done) >= stop_at,
        warn=lambda text: None,
    )
    return kind(
        backend,
        References(made, backend),
        settings,
        plan,
        StopRule(check_every=1),
        lambda: 1.0,
        3,
        watch,
        folder,
        **{"variants": tiny.variants(), "views": views, **more},
    )


def applied(folder, encoder, method, *, stop_at=None, packed=False, **changes):
    settings = settings_of(method, **changes)
    session = session_of(folder, encoder, settings, stop_at=stop_at, packed=packed)
    outcome = session.apply(build_method(method, SETTINGS.get(method, {})))
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in outcome.rows]
    return session, dict(session.current), replace(outcome, rows=tuple(rows))


# --- resuming


@pytest.mark.parametrize("stop_at", [pytest.param(1, marks=pytest.mark.slow), STEPS])
@pytest.mark.parametrize("method", costly(METHODS.names()))
def test_every_method_resumes_bit_for_bit(method, stop_at, encoder, tmp_path):
    _, expected, outcome = applied(tmp_path / "whole", encoder, method)
    cut = tmp_path / "cut"
    if method in ("manu", "refusal_guard"):  # no step at which they could be stopped
        assert outcome.steps == 0
    else:
        with pytest.raises(Interrupted):
            applied(cut, encoder, method, stop_at=stop_at)
    torch.manual_seed(54321)
    _, found, again = applied(cut, encoder, method)
    assert again == outcome
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for name in (INDEX, TENSORS):
        if (tmp_path / "whole" / name).exists():
            assert (tmp_path / "whole" / name).read_bytes() == (cut / name).read_bytes()
    if (tmp_path / "whole" / STATE).exists():
        one, other = carried(tmp_path / "whole"), carried(cut)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


class TwoPhases:
    """Trains twice with an edit between, and looks at a gradient."""

    needs = Needs(retain=True, forget_reference="answer")

    def __init__(self, fail_after=None):
        self.fail_after = fail_after

    def run(self, session):
        npo = build_method("npo", {"retain_weight": 0.5})
        session.train(npo, steps=2)
        if self.fail_after == "first phase":
            raise KeyboardInterrupt
        drawn = {
            name: value + 0.01 * torch.randn(value.shape, generator=session.generator(name))
            for name, value in session.current.items()
        }
        session.edit(drawn)
        gradient = session.gradients(npo, batches=2)
        if self.fail_after == "edit":
            raise KeyboardInterrupt
        session.train(
            build_method("ga", {}),
            steps=3,
            penalty=lambda t: sum(value.abs().sum() for value in t.values()) * 1e-3,
        )
        session.carry({"gradient": torch.cat([g.flatten() for g in gradient.values()])})


@pytest.mark.parametrize("fail_after", ["first phase", "edit"])
def test_a_procedure_killed_between_phases_ends_as_if_it_had_not_been(
    fail_after, encoder, tmp_path
):
    settings = settings_of()
    whole = session_of(tmp_path / "whole", encoder, settings)
    outcome = whole.apply(TwoPhases())
    assert isinstance(TwoPhases(), Procedure)
    assert [row["step"] for row in outcome.rows] == [1, 2, 3, 4, 5]
    assert [row["phase"] for row in outcome.rows] == [1, 1, 2, 2, 2]
    assert all("penalty" in row for row in outcome.rows[2:])
    with pytest.raises(KeyboardInterrupt):
        session_of(tmp_path / "cut", encoder, settings).apply(TwoPhases(fail_after))
    again = session_of(tmp_path / "cut", encoder, settings)
    again.apply(TwoPhases())
    assert all(torch.equal(again.current[n], whole.current[n]) for n in whole.current)
    states = [carried(tmp_path / name)["gradient"] for name in ("whole", "cut")]
    assert torch.equal(*states)
    assert states[0].abs().sum() > 0


@pytest.mark.parametrize("method", costly(METHODS.names()))
def test_packing_changes_nothing_but_rounding(method, encoder, tmp_path):
    _, plain, _ = applied(tmp_path / "plain", encoder, method, lora=LoraSettings(rank=2))
    _, packed, _ = applied(
        tmp_path / "packed", encoder, method, lora=LoraSettings(rank=2), packed=True
    )
    assert all(torch.allclose(plain[name], packed[name], atol=2e-4, rtol=1e-3) for name in plain)


# --- what a session allows


def test_edits_outside_the_scope_or_of_another_shape_are_refused_together(encoder, tmp_path):
    session = session_of(tmp_path / "s", encoder, settings_of())
    name = next(iter(session.current))
    before = tiny.snapshot(session.model)
    with pytest.raises(MethodError) as error:
        session.edit(
            {
                "model.vision_tower.some.weight": torch.zeros(2),
                name: torch.zeros(3, 3, 3),
                list(session.current)[1]: torch.full_like(
                    session.current[list(session.current)[1]], torch.nan
                ),
            }
        )
    assert len(error.value.problems) == 3
    after = tiny.snapshot(session.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_gradients_are_those_of_the_mean_loss_and_leave_nothing_behind(encoder, tmp_path):
    settings = settings_of(lora=LoraSettings(rank=2))
    session = session_of(tmp_path / "s", encoder, settings)
    tiny.randomise(session.model, seed=3)
    ga = build_method("ga", {})
    found = session.gradients(ga, batches=2)
    squared = session.gradients(ga, batches=1, squared=True)
    assert all(p.grad is None for p in session.model.parameters())
    objective = Unlearning(session.backend, ga, "with_end", session.references, 3)
    session.model.eval()
    steps = plan(2)
    total = sum(objective.terms(steps[k])[0].values.mean() for k in range(2)) / 2
    names = [n for n, p in session.model.named_parameters() if p.requires_grad]
    parameters = [p for p in session.model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(total, parameters)
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)
    (first,) = [objective.terms(plan(1)[0])[0].values.mean()]
    one = torch.autograd.grad(first, parameters)
    for name, gradient in zip(names, one, strict=True):
        torch.testing.assert_close(squared[name], gradient.square(), atol=1e-6, rtol=1e-2)


def test_activity_is_told_apart_by_modality_at_the_places_that_predict_the_answer(
    encoder, tmp_path
):
    settings = settings_of(update="full")
    session = session_of(tmp_path / "s", encoder, settings)
    layer = next(n for n in session.current if n.endswith("mlp.down_proj.weight"))
    layer = layer.removesuffix(".weight")
    found = session.activations([layer], "forget", batches=1, above=0.5)
    seen = []
    handle = session.model.get_submodule(layer).register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0][0].detach())
    )
    rows = {"multimodal": [], "text_only": []}
    for one in plan(1)[0].forget:
        seen.clear()
        with torch.no_grad():
            view = Plain(session.model, encoder).answer_log_probs([one], tokens="with_end")
        length = int(view.mask.sum())
        rows[one.modality].append(seen[0][-length - 1 : -1])
    handle.remove()
    assert found.keys() == rows.keys()
    for modality, parts in rows.items():
        z, activity = torch.cat(parts).double(), found[modality][layer]
        for value, expected in (
            (activity.mean_absolute, z.abs().mean(0)),
            (activity.variance, z.var(0, correction=0)),
            (activity.mean_square, z.square().mean(0)),
        ):
            torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-3)
        assert torch.equal(activity.frequency, (z.abs() > 0.5).double().mean(0))
        assert 0 < float(activity.frequency.mean()) < 1


@pytest.mark.parametrize("packed", [False, True])
def test_hidden_states_are_those_the_answer_is_decided_at(packed, encoder):
    made = model_of(settings_of())
    tiny.randomise(made.model, seed=2)
    made.model.eval()
    backend = Packed(made.model, encoder, budget=64) if packed else Plain(made.model, encoder)
    examples = tiny.mixed()
    with torch.no_grad():
        view = backend.answer_log_probs(examples, tokens="with_end", hidden_layer=0)
        hidden = losses.hidden_of(view)
        for number, one in enumerate(examples):
            text = encoder.prompt(one) + " " + one.answer + tiny.END
            inputs, length = tiny.full_inputs(encoder, one, text)
            states = made.model(**inputs, use_cache=False, output_hidden_states=True).hidden_states
            expected = states[1][0][-length - 1 : -1]
            torch.testing.assert_close(
                hidden[number][view.mask[number]], expected, atol=1e-4, rtol=1e-3
            )
    with pytest.raises(ModelError, match="no such layer"):
        backend.answer_log_probs(examples, tokens="with_end", hidden_layer=9)


def test_the_reference_gives_no_gradient(encoder, tmp_path):
    """Through the loop's own door: only the current model's parameters are in the graph."""
    settings = settings_of(update="full")
    session = session_of(tmp_path / "s", encoder, settings)
    examples = tiny.letters(3)
    current = session.backend.answer_log_probs(examples, tokens="with_end")
    assert current.log_probs.requires_grad
    for extent in ("answer", "distribution"):
        frozen = session.references.view(examples, current, extent=extent, tokens="with_end")
        assert not frozen.log_probs.requires_grad


def test_a_term_of_the_wrong_shape_is_told_with_its_name(encoder, tmp_path):
    class Mean:
        needs = Needs()

        def terms(self, views: Views):
            return (Term("mine", losses.mean_nll(views.forget).mean()),)

    session = session_of(tmp_path / "s", encoder, settings_of())
    with pytest.raises(MethodError, match=r"'mine'"):
        session.apply(Mean())


# --- what each method does


def mean_nll(session, examples):
    session.model.eval()
    with torch.no_grad():
        view = session.backend.answer_log_probs(examples, tokens="with_end")
    return losses.mean_nll(view).mean().item()


def test_a_task_vector_goes_the_other_way_than_learning(encoder, tmp_path):
    examples = tiny.letters(6)
    settings = settings_of("task_vector", lora=LoraSettings(rank=2))
    before = mean_nll(session_of(tmp_path / "base", encoder, settings), examples)
    session, _, outcome = applied(tmp_path / "s", encoder, "task_vector", lora=LoraSettings(rank=2))
    assert outcome.rows[-1]["nll"] < outcome.rows[0]["nll"]
    assert mean_nll(session, examples) > before
    problems = [*build_method("task_vector", {}).problems(settings_of(adapter="continued"))]
    assert [problem.where for problem in problems] == ["unlearn.adapter"]


class Watched(MethodSession):
    """Notes what a procedure passes to its session."""

    before_edit: dict
    hooked: list

    def edit(self, tensors):
        self.before_edit = self.current
        super().edit(tensors)

    def train(self, loss, *, gradient_hook=None, **knobs):
        self.hooked = []

        def noted(gradients):
            def flat():
                return torch.cat([gradients[name].flatten().float() for name in names])

            names = sorted(self.initial)
            length = flat().norm()
            gradient_hook(gradients)
            self.hooked.append(flat() / length)

        super().train(loss, gradient_hook=noted if gradient_hook else None, **knobs)


def test_a_full_task_vector_is_the_reflected_change(encoder, tmp_path):
    settings = settings_of("task_vector", update="full")
    session = session_of(tmp_path / "s", encoder, settings, kind=Watched)
    session.apply(build_method("task_vector", {"scale": 0.5}))
    learned = session.before_edit
    for name, now in session.current.items():
        start = session.initial[name]
        torch.testing.assert_close(now, start - 0.5 * (learned[name] - start))


def test_manu_silences_a_share_of_neurons_and_nothing_else(encoder, tmp_path):
    session, after, outcome = applied(tmp_path / "s", encoder, "manu")
    assert (outcome.steps, outcome.stopped_by) == (0, "procedure")
    for name, value in after.items():
        changed = (value != session.initial[name]).any(0) if value.dim() == 2 else None
        if name.endswith("mlp.down_proj.weight"):
            assert int(changed.sum()) == round(0.1 * value.shape[1])
            assert (value[:, changed] == 0).all()
        else:
            assert torch.equal(value, session.initial[name])
    wrong = UnlearnSettings(scope="projector")
    assert [p.where for p in build_method("manu", {}).problems(wrong)] == [
        "unlearn.update",
        "unlearn.scope",
    ]


def test_rmu_moves_forget_states_to_the_direction_and_holds_retain_states(encoder, tmp_path):
    _, _, outcome = applied(tmp_path / "s", encoder, "rmu", lora=LoraSettings(rank=2))
    first, last = outcome.rows[0], outcome.rows[-1]
    assert last["misdirect"] < first["misdirect"]
    assert first["keep"] == pytest.approx(0, abs=1e-9)  # the reference itself, before any step


def test_dpo_prefers_the_other_answer(encoder, tmp_path):
    session, _, _ = applied(tmp_path / "s", encoder, "dpo", lora=LoraSettings(rank=2))
    examples = tiny.letters(6)
    others = [with_alternative(one, "option", seed=3) for one in examples]
    base = session_of(tmp_path / "base", encoder, settings_of(lora=LoraSettings(rank=2)))
    gained = mean_nll(session, examples) - mean_nll(session, others)
    assert gained > mean_nll(base, examples) - mean_nll(base, others) + 0.1


def test_gradient_projection_carries_its_directions_over_five_requests(encoder, tmp_path):
    settings = settings_of("gradient_projection", lora=LoraSettings(rank=2))
    made = model_of(settings)
    state, overlaps = {}, []
    method = build_method("gradient_projection", {"batches": 1})
    for number in range(5):
        folder = tmp_path / f"request{number}"
        session = session_of(folder, encoder, settings, made=made, state=state, kind=Watched)
        session.apply(method)
        overlaps += [
            abs(float(gradient @ direction))
            for gradient in session.hooked
            for direction in state.values()
        ]
        state = carried(folder)
        assert len(state) == number + 1
    basis = torch.stack([state[name] for name in sorted(state)])
    torch.testing.assert_close(basis @ basis.T, torch.eye(5), atol=1e-3, rtol=0)
    assert len(overlaps) == (1 + 2 + 3 + 4) * STEPS
    assert max(overlaps) < 1e-5


# --- alternatives


def test_an_alternative_is_the_same_text_in_every_order_and_never_the_truth():
    one = tiny.example(1, answer="B")
    turned = replace(
        one,
        options=tuple(
            replace(option, text=text)
            for option, text in zip(one.options, [*tiny.JOBS[1:], tiny.JOBS[0]], strict=True)
        ),
        answer="A",
    )
    texts = set()
    for example in (one, turned):
        other = with_alternative(example, "option", seed=5)
        texts.add(next(o.text for o in example.options if o.letter == other.answer))
        assert other.answer != example.answer
    assert len(texts) == 1
    drawn = {with_alternative(one, "any_option", seed=seed).answer for seed in range(40)}
    assert drawn == set("ABCD")
    assert with_alternative(one, "refusal", seed=1).answer in REFUSALS
    with pytest.raises(DataError, match="no other option"):
        with_alternative(replace(one, options=()), "option", seed=0)


class ThreeAndThree:
    """A procedure of two phases, three steps each."""

    needs = Needs()

    def run(self, session):
        for _ in range(2):
            session.train(build_method("ga", {}), steps=3, stop=False)


def test_snapshots_count_the_steps_over_all_phases_and_change_nothing(encoder, tmp_path):
    """Mutation: a phase that counts its snapshots from its own beginning."""
    settings, taken = settings_of(), {}

    def applied(name, snapshots, stop_at=None):
        made = model_of(settings)
        session = session_of(
            tmp_path / name, encoder, settings, made=made, snapshots=snapshots, stop_at=stop_at
        )

        def keep(step):
            taken[name, step] = session.current

        session.watch = replace(session.watch, on_snapshot=keep)
        session.apply(ThreeAndThree())
        return session.current

    without, whole = applied("without", ()), applied("whole", (2, 4, 9))
    assert all(torch.equal(whole[one], without[one]) for one in whole)
    four = applied("four", (4,))
    at = taken["whole", 4]
    assert all(torch.equal(at[one], taken["four", 4][one]) for one in at)
    assert not all(torch.equal(at[one], taken["whole", 2][one]) for one in at)
    assert not all(torch.equal(at[one], four[one]) for one in at)
    # What it ended with stands for a step it never made.
    assert all(torch.equal(taken["whole", 9][one], whole[one]) for one in whole)


def test_which_methods_have_a_model_on_the_way():
    """Every loss; of procedures those that only train, in one phase."""
    by_steps = {name for name in METHODS.names() if goes_by_steps(name)}
    assert {"ga", "npo", "rmu", "composed", "ewc", "fit", "mmunlearner", "pdu"} <= by_steps
    assert {"sine_project", "gradient_projection"} <= by_steps
    ends_alone = {"task_vector", "alkn", "manu", "smfa", "undo", "adapter_router", "refusal_guard"}
    assert not by_steps & ends_alone
