"""How a model is held: devices, checkpointed activations, kernels of attention, data types."""

from __future__ import annotations

import pytest
import torch

import tiny_families as families
from pulse_unlearn.config import LoraSettings, ModelSettings
from pulse_unlearn.models.adapters import AdapterStack, add_trainable, prepare
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import FAMILIES
from pulse_unlearn.models.forward import Plain, answer_view
from pulse_unlearn.models.loading import load_model


def load(source, **settings):
    return load_model(ModelSettings(source=str(source), device="cpu", **settings))


def said(loaded):
    batch = Encoder(loaded.processor, loaded.family).answers(families.mixed(), tokens="with_end")
    with torch.no_grad():
        return answer_view(loaded.model, batch).log_probs


def test_a_device_map_places_the_model_and_changes_nothing(tmp_path):
    folder = families.save("llava", tmp_path)
    assert torch.equal(said(load(folder, device_map="auto")), said(load(folder)))


@pytest.mark.parametrize("name", FAMILIES.names())
def test_activation_checkpointing_changes_no_gradient_of_an_adapter(name, tmp_path):
    source = families.save(name, tmp_path / name)
    found = []
    for checkpointing in (False, True):
        loaded = load(source, gradient_checkpointing=checkpointing)
        assert loaded.model.is_gradient_checkpointing == checkpointing
        lora = LoraSettings(rank=2, alpha=4.0)

        def fresh(model, family=loaded.family, lora=lora):
            return add_trainable(model, family, "all", lora=lora, seed=0)

        made = prepare(loaded.model, AdapterStack(), how="merged", fresh=fresh)
        made.model.train()
        view = Plain(made.model, Encoder(loaded.processor, loaded.family)).answer_log_probs(
            families.mixed(), tokens="text"
        )
        view.log_probs.gather(-1, view.labels.unsqueeze(-1)).sum().backward()
        found.append({key: p.grad for key, p in made.model.named_parameters() if p.requires_grad})
    plain, checkpointed = found
    assert plain.keys() == checkpointed.keys()
    for key, gradient in plain.items():
        assert gradient is not None or checkpointed[key] is None, key
        if gradient is not None:
            assert torch.equal(gradient, checkpointed[key]), key
    assert any(float(g.abs().max()) > 0 for g in plain.values() if g is not None)


@pytest.mark.parametrize("name", FAMILIES.names())
def test_the_kernels_of_attention_say_the_same(name, tmp_path):
    source = families.save(name, tmp_path)
    fused, plain = (load(source, attention=kind) for kind in ("sdpa", "eager"))
    assert (fused.model.config._attn_implementation, plain.model.config._attn_implementation) == (
        "sdpa",
        "eager",
    )
    torch.testing.assert_close(said(fused), said(plain), atol=2e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", FAMILIES.names())
def test_half_precision_reads_pictures_and_stays_near(name, dtype, tmp_path):
    source = families.save(name, tmp_path / name)
    loaded = load(source, dtype=dtype)
    assert loaded.model.dtype == getattr(torch, dtype)
    found, expected = said(loaded), said(load(source))
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 0.7
    assert float((found - expected).abs().mean()) < 0.06
