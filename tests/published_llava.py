"""A LLaVA-1.5 folder in the layout of the repositories published in 2023, tiny and random.

Only widths and depths are made smaller. Files, their keys, names of weights, token numbers, the
tokenizer's parts and the vision tower's fields are those of `llava-hf/llava-1.5-13b-hf`: weights
named before transformers moved them below `model.`, a config without what later releases write,
half precision in shards, a processor that is a picture processor and a tokenizer and no more.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

SIZE, PATCH = 28, 14
PATCHES = (SIZE // PATCH) ** 2
IMAGE, PAD, VOCABULARY = 32000, 32001, 32064
ADDED = {"<image>": IMAGE, "<pad>": PAD}
SHARDS = 3

TEXT = {
    "_name_or_path": "lmsys/vicuna-13b-v1.5",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 24,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "torch_dtype": "float16",
    "vocab_size": VOCABULARY,
}
CONFIG = {
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": IMAGE,
    "model_type": "llava",
    "pad_token_id": PAD,
    "projector_hidden_act": "gelu",
    "text_config": TEXT,
    "torch_dtype": "float16",
    "transformers_version": "4.36.0.dev0",
    "vision_config": {
        "hidden_size": 12,
        "image_size": SIZE,
        "intermediate_size": 20,
        "model_type": "clip_vision_model",
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "patch_size": PATCH,
        "projection_dim": 768,
        "vocab_size": 32000,
    },
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": VOCABULARY,
}
PICTURES = {
    "crop_size": {"height": SIZE, "width": SIZE},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "processor_class": "LlavaProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": SIZE},
}
PROCESSOR = {
    "image_token": "<image>",
    "num_additional_image_tokens": 1,
    "patch_size": PATCH,
    "processor_class": "LlavaProcessor",
    "vision_feature_select_strategy": "default",
}
"""What later revisions added, in a file of its own."""
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def model(seed: int = 0) -> Any:
    """The model as transformers builds it today, its values those that half precision holds."""
    torch.manual_seed(seed)
    made = hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(
            vision_config=hf.CLIPVisionConfig(
                **{
                    key: value
                    for key, value in CONFIG["vision_config"].items()
                    if key != "model_type"
                }
            ),
            text_config=hf.LlamaConfig(
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                vocab_size=VOCABULARY,
                rms_norm_eps=1e-5,
                tie_word_embeddings=False,
            ),
            image_token_index=IMAGE,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_((parameter * (6.0 if parameter.dim() > 1 else 1.0)).half())
    return made.requires_grad_(False).eval()


def old_name(name: str) -> str:
    """The name a weight had before transformers moved it below `model.`."""
    for new, old in (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
        ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
    ):
        if name.startswith(new):
            return old + name.removeprefix(new)
    raise ValueError(name)


def tokenizer_json() -> str:
    """Pieces of the sentencepiece kind: bytes, characters, words that begin with a blank."""
    words = ["USER", "ASSISTANT", "Who", "is", "Ann", "Bo", "black", "hair", "very", *"ABCD"]
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for piece in ("▁", *string.printable.strip()):
        vocabulary.setdefault(piece, len(vocabulary))
    merges = []
    for word in words:
        for left, right in ((f"▁{word[:cut]}", word[cut]) for cut in range(len(word))):
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
    while len(vocabulary) < IMAGE:
        vocabulary[f"▁filler{len(vocabulary)}"] = len(vocabulary)
    backend = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    added = [
        AddedToken(piece, special=True, normalized=False) for piece in ("<unk>", "<s>", "</s>")
    ]
    backend.add_special_tokens(
        [*added, *(AddedToken(piece, special=True, normalized=False) for piece in ADDED)]
    )
    return backend.to_str()


def _token(content: str) -> dict[str, Any]:
    plain = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": content, **plain, "special": True}


TOKENIZER = {
    "added_tokens_decoder": {
        str(number): _token(piece)
        for piece, number in {"<unk>": 0, "<s>": 1, "</s>": 2, **ADDED}.items()
    },
    "bos_token": "<s>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "</s>",
    "legacy": False,
    "model_max_length": 1000000000000000019884624838656,
    "pad_token": "<pad>",
    "padding_side": "left",
    "processor_class": "LlavaProcessor",
    "sp_model_kwargs": {},
    "tokenizer_class": "LlamaTokenizer",
    "unk_token": "<unk>",
    "use_default_system_prompt": False,
}


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def save(folder: Path, *, template: str = "chat_template.json", mended: bool = True) -> Path:
    """Write the folder as its latest revisions have it; `mended=False` as the first ones had it.

    The first ones had neither processor_config.json nor a chat template nor a pad token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, "config.json", CONFIG)
    write(folder, "preprocessor_config.json", PICTURES)
    write(folder, "generation_config.json", {"_from_model_config": True, "pad_token_id": PAD})
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    write(folder, "tokenizer_config.json", TOKENIZER)
    write(folder, "added_tokens.json", ADDED)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    write(folder, "special_tokens_map.json", special)
    if mended:
        write(folder, "processor_config.json", PROCESSOR)
        if template == "chat_template.json":
            write(folder, template, {"chat_template": TEMPLATE})
        else:
            (folder / template).write_text(TEMPLATE, encoding="utf-8")
    else:
        del special["pad_token"]
        write(folder, "special_tokens_map.json", special)
        bare = {key: value for key, value in TOKENIZER.items() if key != "pad_token"}
        write(folder, "tokenizer_config.json", bare)
    _save_weights(folder)
    return folder


def _save_weights(folder: Path) -> None:
    tensors = {old_name(name): value.half() for name, value in model().state_dict().items()}
    names = sorted(tensors)
    files = [f"model-{k + 1:05}-of-{SHARDS:05}.safetensors" for k in range(SHARDS)]
    where = {name: files[k % SHARDS] for k, name in enumerate(names)}
    for file in files:
        part = {name: tensors[name].contiguous() for name in names if where[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    total = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write(folder, "model.safetensors.index.json", index)
