"""Settings of a model: the hub's cache, trusted code, adapters of its own, padded pictures."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants as hub_constants
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import published_llava as published
import tiny_families as families
import tiny_models as tiny
from data_cases import encoded
from pulse_unlearn.config import ModelSettings, parse_experiment
from pulse_unlearn.data.images import picture_from_bytes
from pulse_unlearn.errors import ConfigError, ModelError
from pulse_unlearn.models.adapters import load_adapters
from pulse_unlearn.models.checkpoints import model_digest
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.forward import answer_view
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.registries import schemas

REVISION = "0123456789abcdef0123456789abcdef01234567"
NAME = "some/model"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return families.save("llava", tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture
def cache(whole, tmp_path, monkeypatch):
    """The hub's cache with the model in it, as `hf download` leaves it."""
    monkeypatch.setattr("socket.socket.connect", None)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--model" / "snapshots" / REVISION
    shutil.copytree(whole, snapshot)
    return snapshot


def load(source, **settings):
    return load_model(ModelSettings(source=str(source), device="cpu", **settings))


def said(loaded):
    batch = Encoder(loaded.processor, loaded.family).answers(families.mixed(), tokens="with_end")
    with torch.no_grad():
        return answer_view(loaded.model, batch).log_probs


# --- the hub, without a network


def offline(**settings):
    return load(NAME, revision=REVISION, offline=True, **settings)


def test_a_hub_id_is_read_from_the_cache_as_a_folder_is(cache, whole):
    assert torch.equal(said(offline()), said(load(whole)))


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        ("config.json", "config.json"),
        ("tokenizer_config.json", "tokenizer_config.json"),
        ("tokenizer.json", "tokenizer.json or vocab.json or tokenizer.model"),
        ("model.safetensors", f"model.safetensors or {INDEX}"),
    ],
)
def test_offline_names_the_missing_file_and_the_command(cache, removed, named):
    (cache / removed).unlink()
    with pytest.raises(ModelError) as caught:
        offline()
    (problem,) = caught.value.problems
    assert problem.got == f"no {named}"
    assert f"hf download {NAME} --revision {REVISION}" in problem.fix


def test_offline_names_every_missing_file_at_once(cache):
    shutil.rmtree(cache)
    with pytest.raises(ModelError) as caught:
        offline()
    assert [problem.got for problem in caught.value.problems] == [
        "no config.json",
        "no tokenizer_config.json",
        "no tokenizer.json or vocab.json or tokenizer.model",
        "no preprocessor_config.json or processor_config.json",
        f"no model.safetensors or {INDEX}",
    ]


def test_offline_names_a_missing_shard(cache):
    tensors = load_file(cache / "model.safetensors")
    (cache / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {name: f"model-0000{1 + k % 2}-of-00002.safetensors" for k, name in enumerate(names)}
    (cache / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shards}), encoding="utf-8")
    for file in sorted(set(shards.values())):
        part = {name: tensors[name] for name in names if shards[name] == file}
        save_file(part, cache / file, metadata={"format": "pt"})
    expected = said(offline())
    assert expected.isfinite().all()
    (cache / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model-00002-of-00002\.safetensors"):
        offline()


def test_the_mend_of_a_hub_model_is_made_in_a_copy(cache):
    path = cache / "processor_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "patch_size": 3}), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        offline()
    (problem,) = caught.value.problems
    command = f"hf download {NAME} --revision {REVISION} --local-dir FOLDER"
    assert command in problem.fix
    assert problem.fix.endswith(': write "patch_size": 8 into processor_config.json')


def test_the_hub_librarys_own_switch_counts(cache, monkeypatch):
    (cache / "config.json").unlink()
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"no config\.json[\s\S]*hf download"):
        load(NAME, revision=REVISION)


# --- trusted code


CODE = """
from transformers import LlavaConfig
open({marker!r}, "w").write("executed")
class Config(LlavaConfig):
    model_type = "own"
"""


@pytest.mark.parametrize("named", [True, False])
def test_only_the_model_that_is_named_may_run_its_code(named, folder, tmp_path):
    marker = tmp_path / "marker"
    (folder / "own.py").write_text(CODE.format(marker=str(marker)), encoding="utf-8")
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    path.write_text(json.dumps(config | own), encoding="utf-8")
    others = ("some/model", f"{folder}-2", folder.name)
    with pytest.raises(ModelError):  # its code has a config, but no model
        load(folder, trust_remote_code=(*others, str(folder)) if named else others)
    assert marker.exists() == named


# --- adapters of the model


def test_adapters_of_the_model_are_where_it_starts(folder, tmp_path):
    paths = []
    for seed in (1, 2):
        made = tiny.prepared("all", seed=seed)
        tiny.randomise(made.model, seed=seed)
        paths.append(tmp_path / str(seed))
        tiny.save_trained(made.model, paths[-1], base="tiny")
    plain = tmp_path / "plain"
    tiny.base().save_pretrained(plain)
    tiny.processor().save_pretrained(plain)
    settings = ModelSettings(source=str(plain), device="cpu", adapters=tuple(map(str, paths)))
    loaded = load_model(settings)
    batch = tiny.encoder().answers(tiny.mixed(), tokens="with_end")
    with torch.no_grad():
        found = answer_view(loaded.model, batch).log_probs
        held = answer_view(load_adapters(tiny.base(), paths, how="merged"), batch).log_probs
        base = answer_view(tiny.base(), batch).log_probs
    assert torch.equal(found, held)
    assert not torch.allclose(found, base, atol=1e-2)
    assert not [name for name, p in loaded.model.named_parameters() if p.requires_grad]
    digests = {
        model_digest(settings.model_copy(update={"adapters": chosen}))
        for chosen in ((), settings.adapters[:1], settings.adapters, settings.adapters[::-1])
    }
    assert len(digests) == 4


def test_an_adapter_folder_without_an_adapter_is_refused(folder, tmp_path):
    for look in (load_model, model_digest):
        with pytest.raises(ModelError):
            look(ModelSettings(source=str(folder), device="cpu", adapters=(str(tmp_path / "no"),)))


# --- fewer bits, placement


EXPERIMENT = "name: x\nmethods: {ga: {}}\nscenarios: {finetuned: {forget: 50, retain: 50}}\n"


def refusal(*overrides):
    with pytest.raises(ConfigError) as caught:
        parse_experiment(EXPERIMENT, where="x.yaml", overrides=overrides, schemas=schemas())
    return str(caught.value)


def test_quantised_weights_need_bitsandbytes_and_are_never_written_over(folder, monkeypatch):
    monkeypatch.setattr("pulse_unlearn.models.loading.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"bitsandbytes is not installed[\s\S]*\[quant\]"):
        load(folder, quantise="4bit", frozen_adapters="stacked")
    assert "frozen_adapters" in refusal("model.quantise=4bit")
    stacked = ("model.quantise=8bit", "model.frozen_adapters=stacked")
    told = refusal(*stacked, "finetune.update=full", "methods.ga.unlearn.update=full")
    assert "finetune.update" in told
    assert "methods.ga.unlearn.update" in told


# --- pictures


def wide(left, right):
    """A picture twice as wide as high, of two colours."""
    pixels = np.zeros((24, 48, 3), dtype=np.uint8)
    pixels[:, :24], pixels[:, 24:] = left, right
    return picture_from_bytes(encoded(Image.fromarray(pixels)), "wide")


def test_padded_pictures_are_seen_whole_between_bands_of_the_mean_colour(folder):
    one = replace(families.question(0, size=(8, 8)), picture=wide(255, 255))
    cropped, padded = (
        Encoder(loaded.processor, loaded.family).prompts([one])["pixel_values"][0]
        for loaded in (load(folder), load(folder, image_aspect="pad"))
    )
    assert cropped.shape == padded.shape == (3, 24, 24)
    assert cropped.min() == 1.0  # white everywhere: the sides are cut away
    rows = padded[0].mean(-1)
    # A quarter of the height above and below is the mean, which normalises to about zero.
    assert float(rows[:5].abs().max()) < 0.1
    assert float(rows[-5:].abs().max()) < 0.1
    assert float(rows[8:16].min()) > 0.95


@pytest.mark.parametrize("size", [(48, 24), (24, 48), (24, 24)])
def test_padding_is_what_llava_was_trained_with(size, tmp_path, monkeypatch):
    """By hand: a square of the longer side, the picture in its middle, int(255 mean) around it."""
    monkeypatch.setattr("socket.socket.connect", None)
    source = published.save(tmp_path)
    loaded = load(source, image_aspect="pad")
    picture = families.question(0, size=size).picture
    mean, deviation = (published.PICTURES[f"image_{name}"] for name in ("mean", "std"))
    seen = Image.open(io.BytesIO(picture.data)).convert("RGB")
    square = Image.new("RGB", (max(size),) * 2, tuple(int(255 * value) for value in mean))
    square.paste(seen, tuple((max(size) - side) // 2 for side in size))
    resized = square.resize((published.SIZE,) * 2, Image.Resampling.BICUBIC)
    expected = (np.asarray(resized) / 255 - mean) / deviation
    one = replace(families.question(0, size=size), picture=picture)
    found = Encoder(loaded.processor, loaded.family).prompts([one])["pixel_values"][0]
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_how_pictures_are_shown_is_recorded_and_decides_what_is_computed_anew():
    keys = {}
    for aspect in ("processor", "pad"):
        experiment = parse_experiment(
            EXPERIMENT,
            where="x.yaml",
            overrides=(f"model.image_aspect={aspect}",),
            schemas=schemas(),
        )
        inputs = read_inputs(experiment)
        assert experiment.model_dump(mode="json")["model"]["image_aspect"] == aspect
        keys[aspect] = {name: key.fingerprint for name, key in inputs.keys.items()}
    assert keys["pad"].keys() == keys["processor"].keys()
    assert not set(keys["pad"].values()) & set(keys["processor"].values())


def test_only_a_processor_that_crops_can_pad(tmp_path):
    source = families.save("qwen2_vl", tmp_path)
    with pytest.raises(ModelError, match=r"cannot be padded[\s\S]*image_aspect=processor"):
        load(source, image_aspect="pad")
