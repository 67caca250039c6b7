"""A LoRA folder in the form of LLaVA's own trainer, converted: the same outputs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from pipeline_cases import environment, make_model
from pulse_unlearn.models.adapters import load_adapters

SCRIPT = Path(__file__).parents[1] / "examples" / "llava-lora" / "convert.py"


def load(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny LLaVA, the folder its trainer would have left, and what the trained model says."""
    root = tmp_path_factory.mktemp("llava")
    model = load(make_model(root / "model"))
    language = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
    trained = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=language))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_" in name or "multi_modal_projector" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    own = root / "own"
    trained.save_pretrained(own)
    adapter = {
        name.replace("model.language_model.layers", "model.layers"): tensor.contiguous()
        for name, tensor in get_peft_model_state_dict(trained).items()
    }
    save_file(adapter, own / "adapter_model.safetensors")
    places = {"linear_1": "0", "linear_2": "2"}
    projector = {
        "base_model.model.model.mm_projector."
        + re.sub(r"linear_\d", lambda found: places[found[0]], name): tensor
        for name, tensor in model.model.multi_modal_projector.state_dict().items()
    }
    torch.save(projector, own / "non_lora_trainables.bin")
    config = json.loads((own / "adapter_config.json").read_text())
    config["target_modules"] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
    (own / "adapter_config.json").write_text(json.dumps(config))
    return root / "model", own, outputs(trained)


def outputs(model):
    torch.manual_seed(2)
    ids = torch.full((1, 20), model.config.image_token_index)
    ids[0, 16:] = torch.tensor([5, 6, 7, 8])
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=torch.randn(1, 3, 48, 48)).logits


def convert(own, out):
    command = [sys.executable, str(SCRIPT), str(own), str(out)]
    return subprocess.run(
        command, check=False, env=environment(), capture_output=True, text=True, timeout=300
    )


def test_the_converted_adapter_says_what_the_trained_model_said(trained, tmp_path):
    base, own, said = trained
    ended = convert(own, tmp_path / "mine")
    assert ended.returncode == 0, ended.stderr
    plain = load(base)
    assert not torch.allclose(outputs(plain), said, atol=1e-2)
    assert torch.allclose(
        outputs(load_adapters(plain, [tmp_path / "mine"], how="merged")), said, atol=1e-5
    )


def test_tensors_of_neither_kind_are_named(trained, tmp_path):
    _, own, _ = trained
    folder = shutil.copytree(own, tmp_path / "own")
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.zeros(4, 32)
    save_file(tensors, folder / "adapter_model.safetensors")
    ended = convert(folder, tmp_path / "mine")
    assert ended.returncode == 2
    assert "lm_head" in ended.stderr
    assert not (tmp_path / "mine").exists()
