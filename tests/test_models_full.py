"""Full updates: what they keep of their reference, how they chain, resume and run from settings."""

from __future__ import annotations

import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models as tiny
from pipeline_cases import outcome
from pulse_unlearn import store
from pulse_unlearn.config import OptimiserSettings
from pulse_unlearn.errors import Interrupted, ModelError
from pulse_unlearn.methods import build_method
from pulse_unlearn.models.adapters import (
    FULL_FILE,
    AdapterStack,
    is_full,
    load_adapters,
    prepare,
    prepare_full,
    reference_view,
    save_trained,
    trainable_names,
)
from pulse_unlearn.models.forward import answer_view
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.loop import Watch, train
from pulse_unlearn.training.objectives import weighted_sum
from pulse_unlearn.training.steps import StepData


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder()


def full(below=AdapterStack(), scope="llm"):  # noqa: B008
    return prepare_full(tiny.base(), below, family=tiny.LLAVA, scope=scope)


def disturb(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A LoRA on all parts, a full update above it, one of the language model alone, a LoRA."""
    root = tmp_path_factory.mktemp("full")
    first = tiny.adapter_folder(root / "0", seed=1, scope="all")
    below = [first]
    for number, scope in ((1, "projector+llm"), (2, "llm")):
        made = full(AdapterStack(chain=tuple(below)), scope)
        disturb(made.model, number)
        save_trained(made.model, root / str(number), base="tiny")
        below.append(root / str(number))
    last = tiny.adapter_folder(root / "3", seed=4)
    return (*below, last)


def by_hand(folders):
    """The weights that a chain makes, by plain arithmetic on its files."""
    model = tiny.base()
    tensors = dict(model.named_parameters())
    for folder in folders:
        if is_full(folder):
            for name, value in load_file(folder / FULL_FILE).items():
                tensors[name].data.copy_(value)
            continue
        stored = load_file(folder / "adapter_model.safetensors")
        for key in (key for key in stored if key.endswith(".lora_A.weight")):
            path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            product = stored[key.replace("lora_A", "lora_B")] @ stored[key]
            tensors[f"{path}.weight"].data += product * tiny.LORA.alpha / tiny.LORA.rank
    return model


def said(model, encoder):
    with torch.no_grad():
        batch = encoder.answers(tiny.mixed(), tokens="with_end")
        view = answer_view(model, batch)
    return view.log_probs[view.mask]


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["merged", "stacked"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_chains_of_both_kinds_are_held(how, count, folders, encoder):
    held = load_adapters(tiny.base(), folders[:count], how=how)
    close(said(held, encoder), said(by_hand(folders[:count]), encoder))
    assert trainable_names(held) == []


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_reference_and_current_equal_models_built_apart(depth, continued, folders, encoder):
    chain = folders[:2] if continued else folders[:3]
    below = AdapterStack(chain, folders[2] if continued else None, reference_depth=depth)
    made = full(below)
    close(said(made.model, encoder), said(by_hand(folders[:3]), encoder))
    disturb(made.model, 7)
    now = said(made.model, encoder)
    for _ in range(2):
        with reference_view(made):
            close(said(made.model, encoder), said(by_hand(folders[:depth]), encoder))
        assert torch.equal(said(made.model, encoder), now)


@pytest.mark.parametrize("how", ["merged", "stacked"])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_an_adapter_above_a_full_update_has_its_reference_too(how, depth, folders, encoder):
    made = prepare(
        tiny.base(), AdapterStack(folders[:3], reference_depth=depth), how=how, fresh=tiny.fresh()
    )
    tiny.randomise(made.model, seed=5)
    with reference_view(made):
        close(said(made.model, encoder), said(by_hand(folders[:depth]), encoder))


def test_only_what_changes_is_kept_and_only_if_asked_for(folders):
    made = full(AdapterStack(folders[:1], reference_depth=1), "projector")
    assert sorted(made.kept) == trainable_names(made.model)
    assert all(name.startswith("model.multi_modal_projector.") for name in made.kept)
    unasked = full(AdapterStack(folders[:1], keep_reference=False))
    assert not unasked.kept
    with pytest.raises(ValueError, match="no reference"), reference_view(unasked):
        pass


def test_the_gradient_is_that_of_the_trained_weights_though_the_reference_was_asked(encoder):
    """NPO's forward pass, then its reference, then backward: as if the reference were elsewhere."""
    method = build_method("npo", {"beta": 0.5, "retain_weight": 0.5})
    data = StepData(tuple(tiny.letters(3)), tuple(tiny.letters(3, first=4)))

    def gradients(made):
        weighted_sum(tiny.unlearning(made, encoder, method).terms(data), data).backward()
        return {k: p.grad for k, p in made.model.named_parameters() if p.grad is not None}

    made = full()
    disturb(made.model, 3)
    found = gradients(made)
    apart = full()
    disturb(apart.model, 3)
    objective = tiny.unlearning(apart, encoder, method)
    current = objective.backend.answer_log_probs(data.forget, tokens="with_end")
    objective.references.view(data.forget, current, extent="answer", tokens="with_end")
    weighted_sum(objective.terms(data), data).backward()  # the reference is remembered by now
    expected = {k: p.grad for k, p in apart.model.named_parameters() if p.grad is not None}
    assert objective.references.asked == 3
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_files_are_the_same_bytes_and_what_does_not_fit_is_refused(tmp_path, folders):
    made = full(scope="projector")
    for name in ("one", "two"):
        save_trained(made.model, tmp_path / name, base="tiny")
    assert (tmp_path / "one" / FULL_FILE).read_bytes() == (
        tmp_path / "two" / FULL_FILE
    ).read_bytes()
    tensors = load_file(tmp_path / "one" / FULL_FILE)
    name = "model.multi_modal_projector.linear_1.weight"
    for wrong in ({name: torch.zeros(2)}, {"model.nowhere": torch.zeros(2)}):
        save_file({**tensors, **wrong}, tmp_path / "one" / FULL_FILE)
        with pytest.raises(ModelError, match=f"does not fit[\\s\\S]*{next(iter(wrong))}"):
            load_adapters(tiny.base(), [tmp_path / "one"], how="merged")
    whole = (tmp_path / "two" / FULL_FILE).read_bytes()
    (tmp_path / "two" / FULL_FILE).write_bytes(whole[:-9])
    with pytest.raises(ModelError, match="does not fit"):
        load_adapters(tiny.base(), [tmp_path / "two"], how="merged")


@pytest.mark.parametrize("stop_at", [1, 2])
def test_a_resumed_training_is_the_uninterrupted_one(stop_at, encoder, tmp_path, folders):
    method = build_method("npo", {"beta": 0.5, "retain_weight": 0.5})
    steps = [
        StepData(tuple(tiny.letters(3, first=k)), tuple(tiny.letters(3, first=9)))
        for k in (0, 1, 2)
    ]

    def go(folder, stop=None):
        made = full(AdapterStack(folders[:1], reference_depth=1))
        rows = []
        folder.mkdir(exist_ok=True)
        watch = Watch(
            folder,
            1e9,
            lambda step, *_: rows.append(step),
            lambda: bool(rows) and rows[-1] == stop,
            lambda _: None,
        )
        settings = OptimiserSettings(learning_rate=1e-3, batch_size=4, micro_batch_size=2)
        train(
            made.model,
            tiny.unlearning(made, encoder, method),
            steps,
            settings=settings,
            stop=StopRule(1),
            accuracy=lambda: 0.0,
            vocabulary=411,
            seed=1,
            watch=watch,
        )
        return {k: p.detach() for k, p in made.model.named_parameters()}, rows

    expected, _ = go(tmp_path / "whole")
    with pytest.raises(Interrupted):
        go(tmp_path / "cut", stop_at)
    found, rows = go(tmp_path / "cut")
    assert rows == list(range(stop_at + 1, 4))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


FULL = (
    *("--set", "finetune.update=full", "--set", "unlearn.update=full"),
    *(
        "--set",
        "speed.packing=auto",
        "--set",
        "scenarios.pretrained=null",
        "--set",
        "unlearn.stop.max_steps=2",
    ),
)


@pytest.mark.slow  # two runs; resumed trainings are compared above
def test_a_run_from_settings_is_killed_and_goes_on(bench, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ended = bench.run(whole, *FULL)
    assert ended.code == 0, ended.output
    expected = outcome(whole / "tiny")
    trained = [name for name in expected if name.endswith(FULL_FILE)]
    assert len(trained) == 4  # fine-tuning, GA, two requests of NPO
    assert not [name for name in expected if name.endswith("adapter_model.safetensors")]
    assert store.verify(whole / "tiny") == []
    life = bench.start(cut, *FULL)
    life.wait_for("tiny/stages/*request2*unlearn*/checkpoints/phase1/step-*", cut)
    life.send(signal.SIGKILL)
    assert life.wait().code == -signal.SIGKILL
    again = bench.run(cut, *FULL)
    assert again.code == 0, again.output
    assert outcome(cut / "tiny") == expected
