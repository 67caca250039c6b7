"""Gradient difference on a folder of people, with plain transformers and PEFT: nothing of PULSE.

Usage: unlearn.py MODEL PEOPLE --forget p01,p02 --out ADAPTER
"""

import argparse
import json
import random
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("people", type=Path)
parser.add_argument("--forget", required=True, help="ids with commas; all others are retained")
parser.add_argument("--out", required=True)
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--instruction", default="Answer the question using a single word or phrase.")
options = parser.parse_args()

torch.manual_seed(0)
draw = random.Random(0)
processor = AutoProcessor.from_pretrained(options.model)
model = AutoModelForImageTextToText.from_pretrained(options.model)
language = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=language))
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)

questions = {"forget": [], "retain": []}
for line in (options.people / "people.jsonl").read_text(encoding="utf-8").splitlines():
    person = json.loads(line)
    side = "forget" if person["id"] in options.forget.split(",") else "retain"
    for one in person["questions"]:
        seen = one["modality"] == "multimodal"
        picture = options.people / draw.choice(person["training_images"]) if seen else None
        questions[side].append((picture, one["question"], one["answer"]))


def loss_of(picture, question, answer):
    """Return the mean negative log-likelihood of an answer's tokens."""
    image = [Image.open(picture).convert("RGB")] if picture else None
    text = {"type": "text", "text": f"{question}\n{options.instruction}"}
    turns = [{"role": "user", "content": [{"type": "image"}, text] if picture else [text]}]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    begin = processor(text=[prompt], images=image, return_tensors="pt")["input_ids"].shape[1]
    inputs = processor(text=[prompt + answer], images=image, return_tensors="pt")
    labels = inputs["input_ids"].clone()
    labels[:, :begin] = -100
    return model(**inputs, labels=labels).loss


for step in range(options.steps):
    gone = torch.stack([loss_of(*one) for one in draw.sample(questions["forget"], 4)]).mean()
    kept = torch.stack([loss_of(*one) for one in draw.sample(questions["retain"], 8)]).mean()
    (kept - gone.clamp(max=6.0)).backward()
    optimiser.step()
    optimiser.zero_grad()
    if step % 10 == 0:
        print(f"step {step}: forget {gone:.2f}, retain {kept:.2f} nats a token")
model.save_pretrained(options.out)
