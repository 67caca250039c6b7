"""A LoRA folder of LLaVA's own trainer to a PEFT adapter for the converted model (`-hf`).

Usage: convert.py FOLDER OUT [--base llava-hf/llava-1.5-7b-hf]

Reads `non_lora_trainables.bin` with torch's restricted unpickler (`weights_only=True`), which makes
tensors and no other objects. Run it where you trust the folder; PULSE itself reads no pickle.
"""

import argparse
import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WRAPPED = "base_model.model."
RENAMED = (
    (r"^model\.layers\.", "model.language_model.layers."),
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
)
"""Names of LLaVA's own code -> those of transformers' LlavaForConditionalGeneration."""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("folder", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--base", default="llava-hf/llava-1.5-7b-hf")
options = parser.parse_args()


def tensors_of(name):
    """Return the tensors of a file, safetensors before a pickle; None if there is neither."""
    safe, pickled = (options.folder / f"{name}.{end}" for end in ("safetensors", "bin"))
    if safe.is_file():
        return load_file(safe)
    if pickled.is_file():
        return torch.load(pickled, map_location="cpu", weights_only=True)
    return None


adapter, projector = tensors_of("adapter_model"), tensors_of("non_lora_trainables")
if adapter is None or projector is None:
    parser.error(f"{options.folder}: no adapter_model, or no non_lora_trainables")
converted, strange = {}, []
for name, tensor in {**adapter, **projector}.items():
    bare = name.removeprefix(WRAPPED)
    new = next((re.sub(old, to, bare) for old, to in RENAMED if re.match(old, bare)), None)
    if new is None:
        strange.append(name)
    else:
        converted[WRAPPED + new] = tensor.contiguous()
if strange:
    parser.error(f"{len(strange)} tensors are neither layers nor projector: {strange[:3]}")
config = json.loads((options.folder / "adapter_config.json").read_text(encoding="utf-8"))
layers = {name.removeprefix(WRAPPED).split(".lora_")[0] for name in converted if ".lora_" in name}
config |= {
    "base_model_name_or_path": options.base,
    "modules_to_save": ["multi_modal_projector"],
    "target_modules": sorted(layers),
}
options.out.mkdir(parents=True)
save_file(converted, options.out / "adapter_model.safetensors", metadata={"format": "pt"})
(options.out / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
print(f"{options.out}: {len(layers)} layers and the projector, for {options.base}")
