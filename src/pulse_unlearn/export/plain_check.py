"""Loads an export with transformers and PEFT alone, asks it questions, writes down what it says.

Run in a process of its own (`python plain_check.py questions.json answers.json`): it imports
nothing of PULSE, so that it can do no more than whoever receives the folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.utils import logging
from transformers.utils.import_utils import is_torchvision_available


def load(task: dict[str, Any]) -> tuple[Any, Any]:
    """Return processor and model, as the folder's README loads them."""
    folder, options = task["folder"], {"dtype": getattr(torch, task["dtype"])}
    processor = load_processor(folder)
    auto: Any = AutoModelForImageTextToText
    options["attn_implementation"] = task["attention"]
    if task["base"]:
        from peft import PeftModel

        base = auto.from_pretrained(task["base"], revision=task["revision"], **options)
        model: Any = PeftModel.from_pretrained(base, folder)
    else:
        model = auto.from_pretrained(folder, **options)
    wanted = task["device"]
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return processor, model.to(wanted).eval()


def load_processor(folder: str) -> Any:
    """Return the processor, with pictures processed by Pillow whether or not torchvision is there.

    Without torchvision, some families' processors can only be put together without their part for
    videos.
    """
    auto: Any = AutoProcessor
    pictures: Any = AutoImageProcessor
    by_pillow = pictures.from_pretrained(folder, backend="pil")
    config = json.loads((Path(folder) / "processor_config.json").read_text(encoding="utf-8"))
    kind: Any = getattr(transformers, config["processor_class"])
    if "video_processor" in kind.get_attributes() and not is_torchvision_available():
        return _without_videos(kind, folder, by_pillow)
    processor = auto.from_pretrained(folder)
    processor.image_processor = by_pillow
    return processor


def _without_videos(kind: Any, folder: str, by_pillow: Any) -> Any:
    def check(self: Any, name: str, argument: Any) -> Any:
        if name == "video_processor":
            return None
        return kind.check_argument_for_proper_class(self, name, argument)

    values, _ = kind.get_processor_dict(folder)
    parts = {"image_processor": by_pillow, "tokenizer": AutoTokenizer.from_pretrained(folder)}
    made: Any = type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})
    return made.from_args_and_dict([parts.get(name) for name in kind.get_attributes()], values)


def ask(processor: Any, model: Any, task: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return the greedy answer to one question and the log-probabilities of its options."""
    chat = _chat(asked)
    shown: str = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    inputs = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ).to(model.device, model.dtype)
    settings: Any = GenerationConfig.from_pretrained(task["folder"])
    settings.max_new_tokens = task["max_new_tokens"]
    settings.return_dict_in_generate = settings.output_logits = True
    output = model.generate(**inputs, generation_config=settings)
    said = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    steps = [torch.log_softmax(one[0].float(), dim=-1) for one in output.logits]
    text: str = processor.tokenizer.decode(said, skip_special_tokens=True).strip()
    ended = any(token in task["end_ids"] for token in said)
    stored = tokens_behind(processor, shown, asked["stored"])
    tails = [tokens_behind(processor, shown, one) for one in asked["continuations"]]
    found: dict[str, Any] = {"id": asked["id"], "prompt": shown, "text": text, "ended": ended}
    found["gap"] = _gap(said, stored, steps)
    if asked["letters"]:
        return {**found, "log_probs": [float(steps[0][tail[0]]) for tail in tails], "ends": []}
    texts = [_each(model, inputs, tail, task["answer_type"]) for tail in tails]
    sums = [sum(one[:-1]) for one in texts]
    return {**found, "log_probs": sums, "ends": [one[-1] for one in texts]}


def _chat(asked: dict[str, Any]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    if asked["picture"]:
        content.append({"type": "image", "image": Image.open(asked["picture"]).convert("RGB")})
    user = {"role": "user", "content": [*content, {"type": "text", "text": asked["text"]}]}
    if not asked["system"]:
        return [user]
    return [{"role": "system", "content": [{"type": "text", "text": asked["system"]}]}, user]


def tokens_behind(processor: Any, prompt: str, continuation: str) -> list[int]:
    """Return the tokens of a text that is written behind a prompt."""
    head, whole = (
        processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (prompt, prompt + continuation)
    )
    found: list[int] = whole[len(head) :]
    return found


def _gap(said: list[int], stored: list[int], steps: list[Any]) -> float | None:
    """Return how much likelier the first token that differs is than the stored one, nats.

    None if one answer is the other's beginning.
    """
    for new, old, log_probs in zip(said, stored, steps, strict=False):
        if new != old:
            return float(log_probs[new] - log_probs[old])
    return None


def _each(model: Any, inputs: Any, tail: list[int], answer_type: int) -> list[float]:
    """Return the log-probability of each token of a tail behind the prompt."""
    tokens = inputs["input_ids"]
    behind = torch.tensor([tail], device=tokens.device)
    fill = {"input_ids": behind, "attention_mask": torch.ones_like(behind)}
    # Whatever else there is for each token of the prompt, such as `token_type_ids`.
    more = {
        name: torch.cat([value, fill.get(name, torch.full_like(behind, answer_type))], dim=1)
        for name, value in inputs.items()
        if value.shape == tokens.shape
    }
    with torch.no_grad():
        logits = model(**{**inputs, **more}, use_cache=False).logits[0]
    rows = torch.log_softmax(logits[-len(tail) - 1 : -1].float(), dim=-1)
    return [float(row[token]) for row, token in zip(rows, tail, strict=True)]


def main() -> None:
    """Ask every question of the task file; one JSON object for each in the answers' file."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    processor, model = load(task)
    answers = [ask(processor, model, task, asked) for asked in task["questions"]]
    Path(sys.argv[2]).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main()
