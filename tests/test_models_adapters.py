"""Adapters: which tensors a scope trains, what stays frozen, and what the reference really is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

import tiny_models as tiny
from method_cases import LOSSES, costly
from pulse_unlearn.config import LoraSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.methods import Needs, build_method
from pulse_unlearn.models import adapters
from pulse_unlearn.models.adapters import (
    ADAPTER_FILE,
    AdapterStack,
    load_adapters,
    prepare,
    reference_view,
    save_trained,
    trainable_names,
)
from pulse_unlearn.models.forward import answer_view
from pulse_unlearn.models.parts import targets
from pulse_unlearn.training.objectives import weighted_sum
from pulse_unlearn.training.steps import StepData

ATTENTION = [f"self_attn.{name}_proj" for name in ("q", "k", "v", "o")]
LLM = [
    f"model.language_model.layers.{layer}.{name}"
    for layer in (0, 1)
    for name in (*ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
]
PROJECTOR = [f"model.multi_modal_projector.linear_{number}" for number in (1, 2)]
CLIP = [f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")]
VISION = [
    f"model.vision_tower.encoder.layers.{layer}.{name}"
    for layer in (0, 1)
    for name in (*CLIP, "mlp.fc1", "mlp.fc2")
]
SCOPES = {
    "projector": PROJECTOR,
    "llm": LLM,
    "projector+llm": PROJECTOR + LLM,
    "vision": VISION,
    "all": VISION + PROJECTOR + LLM,
}


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder()


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Folders of three earlier adapters: fine-tuning and two requests."""
    root = tmp_path_factory.mktemp("chain")
    return tuple(tiny.adapter_folder(root / f"{seed}", seed=seed) for seed in (1, 2, 3))


def view(model, encoder, examples=None):
    with torch.no_grad():
        return answer_view(model, encoder.answers(examples or tiny.mixed(), tokens="with_end"))


def at_answers(seen):
    """Log-probs where there is an answer; elsewhere a view may hold anything."""
    return seen.log_probs[seen.mask]


def expected_names(scope):
    return sorted(
        f"base_model.model.{path}.lora_{side}.trained.weight"
        for path in SCOPES[scope]
        for side in "AB"
    )


# --- scopes


@pytest.mark.parametrize("scope", SCOPES)
def test_exactly_the_scope_is_trainable(scope):
    model = tiny.base()
    assert sorted(targets(model, tiny.LLAVA, scope).layers) == sorted(SCOPES[scope])
    assert trainable_names(tiny.prepared(scope).model) == expected_names(scope)


@pytest.mark.parametrize("how", ["merged", "stacked"])
def test_scope_is_the_same_above_earlier_adapters(how, chain):
    below = AdapterStack(chain=chain[:2], reference_depth=1)
    made = prepare(tiny.base(), below, how=how, fresh=tiny.fresh("all"))
    assert trainable_names(made.model) == expected_names("all")


def test_llm_leaves_the_vision_tower_alone_though_it_has_q_proj_too():
    made = tiny.prepared("llm")
    assert any("vision_tower" in n and "q_proj" in n for n, _ in made.model.named_modules())
    assert not [n for n, _ in made.model.named_parameters() if "vision" in n and "lora" in n]


def test_a_scope_without_linear_layers_is_refused():
    family = replace(tiny.LLAVA, projector="model.language_model.norm")
    with pytest.raises(ModelError, match="no linear layer"):
        targets(tiny.base(), family, "projector")


def test_adapter_weights_come_from_the_seed():
    one, same, other = (tiny.snapshot(tiny.prepared(seed=seed).model) for seed in (5, 5, 6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


# --- the base model below


def test_a_fresh_adapter_and_adapters_off_are_the_base_bit_for_bit(encoder):
    expected = view(tiny.base(), encoder).log_probs
    made = tiny.prepared()
    assert torch.equal(view(made.model, encoder).log_probs, expected)
    tiny.randomise(made.model, seed=1)
    assert not torch.allclose(view(made.model, encoder).log_probs, expected, atol=1e-2)
    with reference_view(made):
        assert torch.equal(view(made.model, encoder).log_probs, expected)


@pytest.mark.parametrize("how", ["merged", "stacked"])
def test_no_second_model_in_memory(how, chain, encoder):
    model = tiny.base()
    count = len(list(model.parameters()))
    known = {id(parameter) for parameter in model.parameters()}
    below = AdapterStack(chain=chain[:2], start_from=chain[2], reference_depth=3)
    made = prepare(model, below, how=how, fresh=tiny.fresh())
    plain = {id(p) for name, p in made.model.named_parameters() if ".lora_" not in name}
    assert plain == known
    assert len(plain) == count
    assert sum(isinstance(module, type(model)) for module in made.model.modules()) == 1
    with reference_view(made):
        assert {id(p) for n, p in made.model.named_parameters() if ".lora_" not in n} == known


# --- one operation of each method


def method_settings(name):
    return {
        "npo": {"beta": 0.5, "retain_weight": 0.5},
        "ga_klr": {"weight": 0.7},
        "rmu": {"layer": -1},
    }.get(name, {})


@pytest.mark.parametrize("name", costly(LOSSES))
@pytest.mark.parametrize("scope", ["projector", "llm", "vision", "all"])
def test_an_operation_changes_the_scope_and_nothing_else(name, scope, encoder):
    made = tiny.prepared(scope)
    before = tiny.snapshot(made.model)
    objective = tiny.unlearning(made, encoder, build_method(name, method_settings(name)))
    made.model.train()
    trained = [tensor for tensor in made.model.parameters() if tensor.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    data = StepData(tuple(tiny.letters(4)), tuple(tiny.letters(4, first=4)))
    for _ in range(2):  # B is zero at first, so A moves from the second step on
        weighted_sum(objective.terms(data), data).backward()
        optimiser.step()
        optimiser.zero_grad()
    changed = {n for n, p in made.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(expected_names(scope))


# --- the reference


def independent(folders):
    """A second model, built by plain arithmetic on the adapter files: W + (alpha / r) B A."""
    model = tiny.base()
    modules = dict(model.named_modules())
    for folder in folders:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / ADAPTER_FILE)
        for key in tensors:
            if key.endswith(".lora_A.weight"):
                path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                product = tensors[key.replace("lora_A", "lora_B")] @ tensors[key]
                modules[path].weight.data += product * config["lora_alpha"] / config["r"]
    return model


CASES = {
    # name: (adapters below, continues the last one, depth of the reference)
    "original, pretrained": (0, False, 0),
    "original, first request": (1, False, 1),
    "original, later request, fresh": (3, False, 1),
    "previous, later request, fresh": (3, False, 3),
    "original, continued": (3, True, 1),
    "previous, continued": (3, True, 3),
    "original, pretrained, continued": (1, True, 0),
    "previous, pretrained, continued": (1, True, 1),
}


@pytest.mark.parametrize("how", ["merged", "stacked"])
@pytest.mark.parametrize("case", CASES)
def test_reference_and_current_equal_models_built_apart(case, how, chain, encoder, tmp_path):
    count, continued, depth = CASES[case]
    folders = chain[:count]
    below = AdapterStack(
        chain=folders[:-1] if continued else folders,
        start_from=folders[-1] if continued else None,
        reference_depth=depth,
    )
    made = prepare(tiny.base(), below, how=how, fresh=tiny.fresh())
    tiny.randomise(made.model, seed=9)
    save_trained(made.model, tmp_path / "now", base="tiny")
    now = (*below.chain, tmp_path / "now")
    seen = _views_of_npo_and_kl(made, encoder)
    for found, apart in ((seen.forget_reference, folders[:depth]), (seen.forget, now)):
        expected = at_answers(view(independent(apart), encoder))
        torch.testing.assert_close(at_answers(found), expected, atol=1e-5, rtol=0)
    current, reference = at_answers(seen.forget), at_answers(seen.forget_reference)
    assert not torch.allclose(current, reference, atol=1e-2)
    torch.testing.assert_close(
        seen.retain_reference.log_probs,
        view(independent(folders[:depth]), encoder, tiny.letters(3)).log_probs,
        atol=1e-5,
        rtol=0,
    )
    # What the reference looked at left the trained model as it was, gradients included.
    assert trainable_names(made.model) == expected_names("projector+llm")


class _Spy:
    """A method that keeps what the loop shows it."""

    def __init__(self):
        self.needs = Needs(
            retain=True, forget_reference="distribution", retain_reference="distribution"
        )
        self.views = None

    def terms(self, views):
        self.views = views
        return ()


def _views_of_npo_and_kl(made, encoder):
    spy = _Spy()
    made.model.train()
    data = StepData(tuple(tiny.mixed()), tuple(tiny.letters(3)))
    tiny.unlearning(made, encoder, spy).terms(data)
    assert made.model.training
    assert spy.views.forget.log_probs.requires_grad
    assert spy.views.retain.log_probs.requires_grad
    assert not spy.views.forget_reference.log_probs.requires_grad
    assert not spy.views.retain_reference.log_probs.requires_grad
    return spy.views


def test_the_reference_has_no_dropout(encoder, chain, tmp_path):
    lora = LoraSettings(rank=2, alpha=4.0, dropout=0.5)
    earlier = copied(chain[0], tmp_path / "dropout", lambda tensors: tensors)
    path = earlier / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"lora_dropout": 0.5}), encoding="utf-8")
    below = AdapterStack(chain=(earlier, chain[1]), reference_depth=1)
    made = prepare(tiny.base(), below, how="stacked", fresh=tiny.fresh(lora=lora))
    tiny.randomise(made.model, seed=4)
    seen = _views_of_npo_and_kl(made, encoder)
    expected = at_answers(view(independent(chain[:1]), encoder))
    torch.testing.assert_close(at_answers(seen.forget_reference), expected, atol=1e-5, rtol=0)
    made.model.eval()
    assert not torch.allclose(seen.forget.log_probs, view(made.model, encoder).log_probs)


def test_a_failure_inside_the_reference_view_gives_the_trained_model_back(encoder):
    made = tiny.prepared()
    tiny.randomise(made.model, seed=4)
    made.model.train()
    expected = view(made.model, encoder).log_probs
    with pytest.raises(KeyboardInterrupt), reference_view(made):
        raise KeyboardInterrupt
    assert torch.equal(view(made.model, encoder).log_probs, expected)
    assert made.model.training
    assert trainable_names(made.model) == expected_names("projector+llm")


def test_continued_training_starts_from_the_adapter_and_leaves_the_reference(chain, encoder):
    below = AdapterStack(chain=chain[:1], start_from=chain[1], reference_depth=2)
    made = prepare(tiny.base(), below, how="merged", fresh=tiny.fresh())
    expected = view(independent(chain[:2]), encoder).log_probs
    torch.testing.assert_close(view(made.model, encoder).log_probs, expected, atol=1e-5, rtol=0)
    tiny.randomise(made.model, seed=8)
    with reference_view(made):
        again = view(made.model, encoder).log_probs
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=0)


# --- files


@pytest.mark.parametrize("how", ["merged", "stacked"])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_held_adapters_all_count(how, count, chain, encoder):
    held = load_adapters(tiny.base(), chain[:count], how=how)
    expected = view(independent(chain[:count]), encoder).log_probs
    torch.testing.assert_close(view(held, encoder).log_probs, expected, atol=1e-5, rtol=0)
    assert trainable_names(held) == []


@pytest.mark.parametrize("scope", SCOPES)
def test_save_and_load_give_the_same_logits(scope, encoder, tmp_path):
    made = tiny.prepared(scope)
    tiny.randomise(made.model, seed=2)
    for name in ("one", "two"):
        save_trained(made.model, tmp_path / name, base="tiny")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["adapter_config.json", ADAPTER_FILE]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    held = load_adapters(tiny.base(), [tmp_path / "one"], how="stacked")
    assert torch.equal(view(held, encoder).log_probs, view(made.model, encoder).log_probs)


def test_an_adapter_is_an_ordinary_peft_folder(chain, encoder):
    plain = PeftModel.from_pretrained(tiny.base(), str(chain[0]))
    expected = view(independent(chain[:1]), encoder).log_probs
    torch.testing.assert_close(view(plain, encoder).log_probs, expected, atol=1e-5, rtol=0)


def test_saving_asks_no_hub(monkeypatch, tmp_path):
    import peft.utils.save_and_load as peft_files

    def refuse(*_, **__):
        raise AssertionError("asked the hub")

    monkeypatch.setattr(peft_files, "check_file_exists_on_hf_hub", refuse)
    save_trained(tiny.prepared().model, tmp_path / "adapter", base="some/model")
    written = json.loads((tmp_path / "adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert written["base_model_name_or_path"] == "some/model"


def copied(source: Path, target: Path, change) -> Path:
    target.mkdir()
    (target / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    save_file(change(load_file(source / ADAPTER_FILE)), target / ADAPTER_FILE)
    return target


def load_anyhow(folder, *, below=()):
    return load_adapters(tiny.base(), [*below, folder], how="stacked")


@pytest.mark.parametrize("second", [False, True])
def test_another_size_is_refused_naming_the_tensors(second, chain, tmp_path):
    def widen(tensors):
        return {
            key: torch.zeros(2, 64) if "q_proj.lora_A" in key else value
            for key, value in tensors.items()
        }

    folder = copied(chain[0], tmp_path / "wide", widen)
    with pytest.raises(ModelError, match=r"does not fit[\s\S]*layers\.0\.self_attn\.q_proj"):
        load_anyhow(folder, below=chain[:1] if second else ())


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {k.replace("q_proj", "query"): v for k, v in t.items()}, "query"),
        (lambda t: {k: v for k, v in t.items() if "linear_1" not in k}, "linear_1"),
        (lambda t: t | {"base_model.model.lm_head.lora_A.weight": torch.zeros(2, 32)}, "lm_head"),
    ],
)
def test_other_keys_are_refused_naming_them(second, change, said, chain, tmp_path):
    folder = copied(chain[0], tmp_path / "renamed", change)
    with pytest.raises(ModelError, match=rf"does not fit[\s\S]*{said}"):
        load_anyhow(folder, below=chain[:1] if second else ())


def test_modules_that_are_not_there_are_refused(chain, tmp_path):
    folder = copied(chain[0], tmp_path / "elsewhere", lambda tensors: tensors)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = ["model.nowhere"]
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="does not fit"):
        load_anyhow(folder)


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(ModelError, match="does not fit"):
        load_anyhow(tmp_path)


def test_a_torn_adapter_is_refused(chain, tmp_path):
    folder = copied(chain[0], tmp_path / "torn", lambda tensors: tensors)
    whole = (folder / ADAPTER_FILE).read_bytes()
    (folder / ADAPTER_FILE).write_bytes(whole[:-10])
    with pytest.raises(ModelError, match="does not fit"):
        load_anyhow(folder)


def test_merging_leaves_plain_layers(chain):
    held = load_adapters(tiny.base(), chain, how="merged")
    assert type(held) is type(tiny.base())
    assert not [name for name, _ in held.named_modules() if "lora" in name]
    assert all(isinstance(held.get_submodule(path), nn.Linear) for path in SCOPES["all"])
    assert adapters.trainable_names(held) == []
