"""Families the table does not have, tiny and random: some work by their module tree, some not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import (
    DeepseekVLImageProcessorPil,
)
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

import tiny_families as tiny
from pulse_unlearn.models.processors import without_videos
from tiny_families import CHATML, PATCH, PATCHES, PICTURE, QWEN, SIZE, SQUARE, VISION, Tiny

ATTENDED = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def chat(image: str, **more: Any) -> tuple[Any, str]:
    """A tokenizer, and a template that writes `image` for a picture."""
    tok = tiny.tokenizer(QWEN, extra=("<|im_start|>", *more.pop("extra", ())), **more)
    return tok, CHATML.replace("@IMAGE@", image)


def words(kind: type, tok: Any, **more: Any) -> Any:
    return tiny.text_config(kind, tok, **more)


def vipllava() -> Tiny:
    made = tiny.built("llava")
    config = hf.VipLlavaConfig(
        vision_config=made.config.vision_config,
        text_config=made.config.text_config,
        image_token_index=made.config.image_token_index,
        image_seq_length=PATCHES,
        vision_feature_layers=[-1, -2],
    )
    return Tiny(config, made.processor)


def aya_vision() -> Tiny:
    extra = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "<image>")
    tok, template = chat(
        "<image>", extra=(*extra, "TILE", "TILE_GLOBAL", *map("TILE_{}".format, range(1, 5)))
    )
    config = hf.AyaVisionConfig(
        vision_config=hf.SiglipVisionConfig(**{**VISION, "image_size": 32}, vision_use_head=False),
        text_config=words(hf.LlamaConfig, tok),
        image_token_index=tok.convert_tokens_to_ids("<|IMG_PATCH|>"),
        adapter_layer_norm_eps=1e-6,
        alignment_intermediate_size=24,
    )
    pictures = GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, max_patches=3, crop_to_patches=True, **PICTURE
    )
    processor = hf.AyaVisionProcessor(
        pictures, tok, patch_size=PATCH, img_size=32, downsample_factor=2, chat_template=template
    )
    return Tiny(config, processor)


def got_ocr2() -> Tiny:
    tok, template = chat("<img><imgpad></img>", extra=("<img>", "</img>", "<imgpad>"))
    vision = {
        **ATTENDED,
        "image_size": 64,
        "patch_size": 16,
        "output_channels": 8,
        "window_size": 2,
        "global_attn_indexes": [1],
        "mlp_dim": 24,
    }
    config = hf.GotOcr2Config(
        vision_config=vision,
        text_config=words(hf.Qwen2Config, tok).to_dict(),
        image_token_index=tok.convert_tokens_to_ids("<imgpad>"),
    )
    pictures = GotOcr2ImageProcessorPil(size={"height": 64, "width": 64}, **PICTURE)
    return Tiny(config, hf.GotOcr2Processor(pictures, tok, chat_template=template))


def idefics2() -> Tiny:
    extra = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
    tok, template = chat("<image>", extra=extra)
    config = hf.Idefics2Config(
        vision_config=VISION,
        perceiver_config={
            "hidden_size": 16,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 8,
            "num_key_value_heads": 1,
        },
        text_config=words(hf.MistralConfig, tok, sliding_window=None).to_dict(),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )
    pictures = Idefics2ImageProcessorPil(
        size={"shortest_edge": 8, "longest_edge": SIZE}, do_image_splitting=False, **PICTURE
    )
    return Tiny(
        config, hf.Idefics2Processor(pictures, tok, image_seq_len=4, chat_template=template)
    )


def mllama() -> Tiny:
    tok, template = chat("<|image|>", extra=("<|image|>", "<|python_tag|>", "<|begin|>"))
    tok.bos_token = "<|begin|>"
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "intermediate_size": 24,
        "vision_output_dim": 32,
        "image_size": SIZE,
        "patch_size": PATCH,
        "max_num_tiles": 2,
        "intermediate_layers_indices": [1],
        "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
    }
    config = hf.MllamaConfig(
        vision_config=vision,
        text_config=words(
            hf.models.mllama.configuration_mllama.MllamaTextConfig,
            tok,
            cross_attention_layers=[1],
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ).to_dict(),
        image_token_index=tok.convert_tokens_to_ids("<|image|>"),
    )
    pictures = MllamaImageProcessorPil(size=SQUARE, max_image_tiles=2, **PICTURE)
    return Tiny(config, hf.MllamaProcessor(pictures, tok, chat_template=template))


def janus() -> Tiny:
    tok, template = chat(
        "<image_placeholder>",
        image_token="<image_placeholder>",
        boi_token="<begin_of_image>",
        eoi_token="<end_of_image>",
    )
    config = hf.JanusConfig(
        vision_config={**ATTENDED, "image_size": SIZE, "patch_size": PATCH, "projection_dim": 16},
        vq_config={
            "embed_dim": 4,
            "num_embeddings": 8,
            "latent_channels": 4,
            "base_channels": 32,
            "channel_multiplier": [1],
            "num_res_blocks": 1,
            "projection_dim": 16,
            "image_token_embed_dim": 16,
            "num_patches": 3,
        },
        text_config=words(hf.LlamaConfig, tok),
        image_token_id=tok.image_token_id,
    )
    pictures = JanusImageProcessorPil(size=SQUARE, min_size=4, **PICTURE)
    return Tiny(
        config,
        hf.JanusProcessor(pictures, tok, num_image_tokens=PATCHES, chat_template=template),
    )


def deepseek_vl() -> Tiny:
    tok, template = chat("<image_placeholder>", image_token="<image_placeholder>")
    config = hf.DeepseekVLConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False).to_dict(),
        text_config=words(hf.LlamaConfig, tok).to_dict(),
        image_token_id=tok.image_token_id,
    )
    pictures = DeepseekVLImageProcessorPil(size=SQUARE, min_size=4, **PICTURE)
    return Tiny(
        config,
        hf.DeepseekVLProcessor(pictures, tok, num_image_tokens=PATCHES, chat_template=template),
    )


def blip_2(kind: str = "opt") -> Tiny:
    tok, template = chat("<image>", extra=("<image>",))
    text = (
        hf.OPTConfig(
            vocab_size=len(tok) + 4,
            hidden_size=16,
            ffn_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            word_embed_proj_dim=16,
            pad_token_id=tok.pad_token_id,
        )
        if kind == "opt"
        else hf.T5Config(
            vocab_size=len(tok) + 4,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
        )
    )
    config = hf.Blip2Config(
        vision_config={**VISION, "initializer_range": 0.02},
        qformer_config={**ATTENDED, "intermediate_size": 24, "encoder_hidden_size": 16},
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )
    pictures = BlipImageProcessorPil(size=SQUARE, **PICTURE)
    processor = hf.Blip2Processor(pictures, tok, num_query_tokens=4)
    processor.chat_template = template
    return Tiny(config, processor)


def glm4v() -> Tiny:
    extra = (
        "<|image|>",
        "<|video|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    )
    tok, template = chat("<|begin_of_image|><|image|><|end_of_image|>", extra=extra)
    ids = tok.convert_tokens_to_ids(list(extra))
    config = hf.Glm4vConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": PATCH,
            "image_size": SIZE,
            "out_hidden_size": 16,
        },
        text_config=words(
            hf.models.glm4v.configuration_glm4v.Glm4vTextConfig,
            tok,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
            },
        ).to_dict(),
        **dict(
            zip(
                (
                    "image_token_id",
                    "video_token_id",
                    "image_start_token_id",
                    "image_end_token_id",
                    "video_start_token_id",
                    "video_end_token_id",
                ),
                ids,
                strict=True,
            )
        ),
    )
    pictures = Glm4vImageProcessorPil(
        patch_size=PATCH,
        merge_size=2,
        size={"shortest_edge": (2 * PATCH) ** 2, "longest_edge": 8 * (2 * PATCH) ** 2},
        **PICTURE,
    )
    return Tiny(
        config, without_videos(hf.Glm4vProcessor)(pictures, tok, None, chat_template=template)
    )


def pixtral() -> Tiny:
    """LLaVA's class around Pixtral's tower, whose own processor marks the end of every row."""
    tok, template = chat("[IMG]", extra=("[IMG]", "[IMG_BREAK]", "[IMG_END]"))
    config = hf.LlavaConfig(
        vision_config=hf.PixtralVisionConfig(**VISION, head_dim=8).to_dict(),
        text_config=words(hf.MistralConfig, tok, sliding_window=None).to_dict(),
        image_token_index=tok.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    pictures = PixtralImageProcessorPil(
        size={"longest_edge": 4 * PATCH}, patch_size={"height": PATCH, "width": PATCH}, **PICTURE
    )
    processor = hf.LlavaProcessor(
        pictures,
        tok,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        image_token="[IMG]",
        chat_template=template,
    )
    return Tiny(config, processor)


def florence2() -> Tiny:
    tok, template = chat("<image>", image_token="<image>")
    config = hf.Florence2Config(
        vision_config={
            "depths": [1],
            "patch_size": [7],
            "patch_stride": [4],
            "patch_padding": [3],
            "patch_prenorm": [False],
            "embed_dim": [16],
            "num_heads": [2],
            "num_groups": [2],
            "window_size": 3,
            "projection_dim": 16,
        },
        text_config=hf.BartConfig(
            vocab_size=len(tok) + 4,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
        ).to_dict(),
        image_token_id=tok.image_token_id,
    )
    pictures = CLIPImageProcessorPil(size=SQUARE, crop_size=SQUARE, **PICTURE)
    processor = hf.Florence2Processor(pictures, tok)
    processor.chat_template = template
    return Tiny(config, processor)


FAMILIES: dict[str, Callable[[], Tiny]] = {
    "aya_vision": aya_vision,
    "blip_2": blip_2,
    "blip_2_t5": lambda: blip_2("t5"),
    "deepseek_vl": deepseek_vl,
    "florence2": florence2,
    "glm4v": glm4v,
    "got_ocr2": got_ocr2,
    "idefics2": idefics2,
    "janus": janus,
    "mllama": mllama,
    "pixtral": pixtral,
    "vipllava": vipllava,
}


def save(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Write model and processor as a repository holds them."""
    made = FAMILIES[name]()
    torch.manual_seed(seed)
    model = hf.AutoModelForImageTextToText.from_config(made.config)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)  # gates that begin closed would let no picture through
            parameter.mul_(6.0 if parameter.dim() > 1 else 1.0)
    model.save_pretrained(folder)
    for part in (made.processor.tokenizer, made.processor.image_processor):
        part.save_pretrained(folder)
    own = made.processor.to_dict()
    settings = {key: value for key, value in own.items() if isinstance(value, int | str)}
    if name == "pixtral":
        settings["processor_class"] = "PixtralProcessor"
    (folder / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(made.processor.chat_template, encoding="utf-8")
    return folder
