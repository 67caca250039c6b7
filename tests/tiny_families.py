"""Every family of models/families.py, tiny and random, with a tokenizer and template of its own.

Nothing is downloaded. Tokenizers read bytes, so that every character of a prompt is a token and
nothing is lost; special tokens, templates and processors are those the family documents.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.ovis2.image_processing_pil_ovis2 import Ovis2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from data_cases import encoded, noise
from pulse_unlearn.data.images import picture_from_bytes
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import FAMILIES as FACTS
from pulse_unlearn.models.processors import with_template, without_videos
from pulse_unlearn.records import Example, Option

SIZE = 24
PATCH = 8


def tokenizer(
    specials: dict[str, str], *, bos: str | None = None, extra: tuple[str, ...] = (), **named: str
) -> hf.PreTrainedTokenizerFast:
    """Read bytes; ` A` to ` D` are tokens of their own, as in every large vocabulary."""
    pieces = [*dict.fromkeys([*specials.values(), *extra, *named.values()])]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(byte, len(vocabulary))
    merges = [("Ġ", letter) for letter in "ABCD"]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(pieces)
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=named or None,
        clean_up_tokenization_spaces=False,
        **specials,
    )


SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2}
VISION = {**SMALL, **HEADS, "image_size": SIZE, "patch_size": PATCH}
TEXT = {**SMALL, **HEADS, "num_key_value_heads": 2}
PICTURE = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SQUARE = {"height": SIZE, "width": SIZE}
PATCHES = (SIZE // PATCH) ** 2


@dataclass(frozen=True, slots=True)
class Tiny:
    """One family, built from its configuration."""

    config: hf.PretrainedConfig
    processor: Any


def text_config(kind: type, tok: Any, **more: Any) -> Any:
    """The language model's part, over this tokenizer's vocabulary."""
    ids = {
        "vocab_size": len(tok) + 4,  # PaliGemma's and Idefics3's processors add tokens
        "pad_token_id": tok.pad_token_id,
        "bos_token_id": tok.bos_token_id,
        "eos_token_id": tok.eos_token_id,
    }
    return kind(**TEXT, **ids, **more)


LLAMA = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
QWEN = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
GEMMA = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}

IMAGE = "{% for part in message['content'] if part['type'] == 'image' %}"
WORDS = "{% for part in message['content'] if part['type'] == 'text' %}"
END = "{% endfor %}"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    + "{% for part in message['content'] %}{% if part['type'] == 'image' %}@IMAGE@"
    + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def llava() -> Tiny:
    tok = tokenizer(LLAMA, bos="<s>", image_token="<image>")
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=text_config(hf.LlamaConfig, tok),
        image_token_index=tok.image_token_id,
        image_seq_length=PATCHES,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    template = (
        "{% for message in messages %}{{ message['role'] | upper }}: "
        f"{IMAGE}<image>\n{END}{WORDS}{{{{ part['text'] }}}} {END}{END}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size=SQUARE, do_center_crop=True, **PICTURE
    )
    return Tiny(
        config,
        hf.LlavaProcessor(
            pictures,
            tok,
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=template,
        ),
    )


def llava_next() -> Tiny:
    tok = tokenizer(LLAMA, bos="<s>", image_token="<image>")
    grid = [[SIZE, 2 * SIZE], [2 * SIZE, SIZE], [2 * SIZE, 2 * SIZE]]
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=text_config(hf.MistralConfig, tok, sliding_window=None),
        image_token_index=tok.image_token_id,
        image_seq_length=PATCHES,
        image_grid_pinpoints=grid,
    )
    template = (
        "{% for message in messages %}{% if message['role'] == 'user' %}"
        f"[INST] {IMAGE}<image>\n{END}{WORDS}{{{{ part['text'] }}}}{END} [/INST]"
        f"{{% else %}} {WORDS}{{{{ part['text'] }}}}{END}</s>{{% endif %}}{END}"
    )
    pictures = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size=SQUARE, image_grid_pinpoints=grid, **PICTURE
    )
    return Tiny(
        config,
        hf.LlavaNextProcessor(
            pictures,
            tok,
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=template,
        ),
    )


def llava_onevision() -> Tiny:
    tok = tokenizer(QWEN, extra=("<|im_start|>",), image_token="<image>", video_token="<video>")
    grid = [[SIZE, SIZE], [SIZE, 2 * SIZE], [2 * SIZE, SIZE], [2 * SIZE, 2 * SIZE]]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=text_config(hf.Qwen2Config, tok),
        image_token_index=tok.image_token_id,
        video_token_index=tok.video_token_id,
        image_grid_pinpoints=grid,
    )
    template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }} "
        f"{IMAGE}<image>{END}{WORDS}{{{{ '\n' + part['text'] }}}}{END}<|im_end|>{END}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    pictures = LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=grid, **PICTURE)
    return Tiny(
        config,
        without_videos(hf.LlavaOnevisionProcessor)(
            pictures,
            tok,
            None,
            num_image_tokens=PATCHES,
            vision_feature_select_strategy="full",
            chat_template=template,
        ),
    )


QWEN_EXTRA = (
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


def qwen(config_kind: type, processor_kind: type, vision: dict, text: type, *, system: str) -> Tiny:
    tok = tokenizer(QWEN, extra=QWEN_EXTRA)
    ids = dict(zip(QWEN_EXTRA[1:], tok.convert_tokens_to_ids(list(QWEN_EXTRA[1:])), strict=True))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    patch = vision["patch_size"]
    config = config_kind(
        vision_config=vision,
        text_config=text_config(text, tok, rope_parameters=rope).to_dict(),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    pictures = Qwen2VLImageProcessorPil(
        patch_size=patch,
        merge_size=2,
        size={"shortest_edge": (2 * patch) ** 2, "longest_edge": 4 * (2 * patch) ** 2},
        **PICTURE,
    )
    template = system + CHATML.replace("@IMAGE@", QWEN_IMAGE)
    return Tiny(config, without_videos(processor_kind)(pictures, tok, None, chat_template=template))


def qwen2_vl() -> Tiny:
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": PATCH}
    return qwen(
        hf.Qwen2VLConfig,
        hf.Qwen2VLProcessor,
        vision,
        hf.models.qwen2_vl.configuration_qwen2_vl.Qwen2VLTextConfig,
        system=SYSTEM,
    )


def qwen2_5_vl() -> Tiny:
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "patch_size": PATCH,
        "window_size": 4 * PATCH,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 16,
    }
    return qwen(
        hf.Qwen2_5_VLConfig,
        hf.Qwen2_5_VLProcessor,
        vision,
        hf.models.qwen2_5_vl.configuration_qwen2_5_vl.Qwen2_5_VLTextConfig,
        system=SYSTEM,
    )


def qwen3_vl() -> Tiny:
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "patch_size": PATCH,
        "out_hidden_size": 16,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    return qwen(
        hf.Qwen3VLConfig,
        hf.Qwen3VLProcessor,
        vision,
        hf.models.qwen3_vl.configuration_qwen3_vl.Qwen3VLTextConfig,
        system="",
    )


def idefics(start: str, config_kind: type, processor_kind: type, pictures: Any, text: Any) -> Tiny:
    cells = tuple(f"<row_{row}_col_{col}>" for row in range(1, 4) for col in range(1, 4))
    extra = (start, "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
    specials = {"pad_token": "<pad>", "unk_token": "<unk>"}
    ends = "<end_of_utterance>" if start == "<|im_start|>" else "<|end_of_text|>"
    bos = None if start == "<|im_start|>" else start
    tok = tokenizer(
        {**specials, "bos_token": start, "eos_token": ends}, extra=(*extra, *cells), bos=bos
    )
    config = config_kind(
        vision_config={**VISION, "patch_size": 4},
        text_config=text_config(text, tok).to_dict(),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=3,
        pad_token_id=tok.pad_token_id,
    )
    template = start + (
        "{% for message in messages %}{{ message['role'] | capitalize }}:"
        "{% if message['content'][0]['type'] != 'image' %} {% endif %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    return Tiny(config, processor_kind(pictures, tok, chat_template=template))


def idefics3() -> Tiny:
    pictures = Idefics3ImageProcessorPil(
        size={"longest_edge": 2 * SIZE}, max_image_size={"longest_edge": SIZE}, **PICTURE
    )

    def make(pictures: Any, tok: Any, chat_template: str) -> Any:
        return hf.Idefics3Processor(pictures, tok, image_seq_len=4, chat_template=chat_template)

    return idefics("<|begin_of_text|>", hf.Idefics3Config, make, pictures, hf.LlamaConfig)


def smolvlm() -> Tiny:
    pictures = SmolVLMImageProcessorPil(
        size={"longest_edge": 2 * SIZE}, max_image_size={"longest_edge": SIZE}, **PICTURE
    )

    def make(pictures: Any, tok: Any, chat_template: str) -> Any:
        return hf.Idefics3Processor(pictures, tok, image_seq_len=4, chat_template=chat_template)

    return idefics("<|im_start|>", hf.SmolVLMConfig, make, pictures, hf.LlamaConfig)


def gemma3() -> Tiny:
    tok = tokenizer(
        GEMMA,
        bos="<bos>",
        extra=("<start_of_turn>", "<end_of_turn>"),
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(
            **{**VISION, "image_size": 32}, vision_use_head=False
        ).to_dict(),
        text_config=text_config(
            hf.Gemma3TextConfig,
            tok,
            head_dim=8,
            sliding_window=16,
            query_pre_attn_scalar=8,
            layer_types=["sliding_attention", "full_attention"],
        ).to_dict(),
        mm_tokens_per_image=4,
        boi_token_index=tok.boi_token_id,
        eoi_token_index=tok.eoi_token_id,
        image_token_index=tok.image_token_id,
    )
    template = (
        "{{ bos_token }}{% for message in messages %}<start_of_turn>"
        "{{ 'model' if message['role'] == 'assistant' else 'user' }}\n"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
        "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    pictures = Gemma3ImageProcessorPil(size={"height": 32, "width": 32}, **PICTURE)
    return Tiny(
        config, hf.Gemma3Processor(pictures, tok, image_seq_length=4, chat_template=template)
    )


def paligemma() -> Tiny:
    tok = tokenizer(GEMMA, bos="<bos>", image_token="<image>")
    pictures = SiglipImageProcessorPil(size=SQUARE, **PICTURE)
    pictures.image_seq_length = PATCHES
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(
            **VISION, vision_use_head=False, projection_dim=16
        ).to_dict(),
        text_config=text_config(hf.GemmaConfig, tok, head_dim=8).to_dict(),
        image_token_index=tok.image_token_id,
        projection_dim=16,
        hidden_size=16,
    )
    processor = hf.PaliGemmaProcessor(pictures, tok)
    return Tiny(config, with_template(processor, FACTS.get("paligemma")))


def internvl() -> Tiny:
    tok = tokenizer(
        QWEN,
        extra=("<|im_start|>",),
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = hf.InternVLConfig(
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [PATCH, PATCH]},
        text_config=text_config(hf.Qwen2Config, tok).to_dict(),
        image_token_id=tok.context_image_token_id,
        image_seq_length=4,
    )
    pictures = GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, max_patches=3, crop_to_patches=True, **PICTURE
    )
    template = CHATML.replace("@IMAGE@", "<IMG_CONTEXT>\n")
    return Tiny(
        config,
        without_videos(hf.InternVLProcessor)(
            pictures, tok, None, image_seq_length=4, chat_template=template
        ),
    )


OVIS = ("<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")


def ovis2() -> Tiny:
    """Published with 448 pixels in patches of 14, gathered two by two: 256 tokens a tile."""
    tok = tokenizer(QWEN, extra=("<|im_start|>", *OVIS))
    ids = tok.convert_tokens_to_ids(list(OVIS))
    config = hf.Ovis2Config(
        vision_config={
            **VISION,
            "image_size": 32,
            "hidden_stride": 2,
            "vocab_size": 24,
            "num_visual_indicator_tokens": 5,
        },
        text_config=text_config(hf.Qwen2Config, tok).to_dict(),
        image_token_id=ids[0],
        visual_indicator_token_ids=ids[1:],
        vocab_size=len(tok) + 4,
        hidden_size=16,
    )
    pictures = Ovis2ImageProcessorPil(
        size={"height": 32, "width": 32}, max_patches=3, crop_to_patches=True, **PICTURE
    )
    template = SYSTEM + CHATML.replace("@IMAGE@", "<image>\n")
    return Tiny(
        config,
        hf.Ovis2Processor(pictures, tok, image_seq_length=4, chat_template=template),
    )


FAMILIES: dict[str, Callable[[], Tiny]] = {
    "llava": llava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "gemma3": gemma3,
    "paligemma": paligemma,
    "internvl": internvl,
    "ovis2": ovis2,
}


@cache
def built(name: str) -> Tiny:
    """One of the families; not to be changed."""
    return FAMILIES[name]()


def model(name: str, seed: int = 0) -> Any:
    """A frozen model whose weights are large enough for every layer to change the output."""
    torch.manual_seed(seed)
    made = hf.AutoModelForImageTextToText.from_config(built(name).config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(
                    std=0.02
                )  # Gemma 3's projector begins at zero: it would see nothing
            parameter.mul_(6.0 if parameter.dim() > 1 else 1.0)
    return made.requires_grad_(False).eval()


def encoder(name: str) -> Encoder:
    return Encoder(built(name).processor, FACTS.get(name))


def question(
    number: int, *, answer: str = "B", words: int = 0, size: tuple[int, int] | None = None
) -> Example:
    """A short question, about a picture of that size if one is given."""
    filler = " very" * words
    picture = picture_from_bytes(encoded(noise(number, size=size)), f"{number}") if size else None
    return Example(
        example_id=f"e{number}",
        question_id=f"q{number}",
        modality="multimodal" if size else "text_only",
        prompt=f"Who is{filler} {number}?\nA. Ann\nB. Bo",
        answer=answer,
        options=(Option("A", "Ann"), Option("B", "Bo")),
        individual=f"p{number}",
        picture=picture,
    )


def mixed() -> list[Example]:
    """With and without picture, pictures of three shapes, answers of one to several tokens."""
    return [
        question(0, size=(40, 30)),
        question(1, answer="black hair", words=3),
        question(2, size=(20, 50), answer="C", words=1),
        question(3, answer="A"),
        question(4, size=(64, 48), answer="Bo.", words=5),
    ]


def save(name: str, folder: Path) -> Path:
    """Write model and processor as a folder of the hub holds them."""
    # Its own: a tokenizer that has padded writes its pad token into tokenizer.json.
    processor = FAMILIES[name]().processor
    model(name).save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    if processor.chat_template and FACTS.get(name).template is None:
        (folder / "chat_template.jinja").write_text(processor.chat_template, encoding="utf-8")
    fields = (field.partition(".") for field in FACTS.get(name).processor_fields)
    own = {head: getattr(processor, head) for head, dot, _ in fields if not dot}
    (folder / "processor_config.json").write_text(json.dumps(own), encoding="utf-8")
    return folder
