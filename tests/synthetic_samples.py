"""Invented questions and answers for synthetic runs, some of them hostile."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

HOSTILE = "<script>alert('x')</script>\x1b[31m\u202e$\\frac{1}{0}$ =HYPERLINK(1) \ud800"
VALUES = ("teacher", "painter", "sailor", "chemist", "gardener", "pilot")


def make_samples(
    scenarios: Sequence[str], methods: Sequence[str], *, count: int, hostile: bool
) -> list[dict[str, object]]:
    """Return invented questions with invented answers, in the form of `samples.json`."""
    samples: list[dict[str, object]] = []
    for index in range(count):
        scenario = scenarios[index % len(scenarios)]
        multimodal = index % 2 == 0
        person = index // 2
        truth = index % 4
        texts = [VALUES[(person + k) % len(VALUES)] for k in range(4)]
        verdict = ("wrong", "unparsable", "correct", "refused")[index % 4]
        text = {"unparsable": "of of of of", "refused": "I do not know"}.get(verdict, "ABCD"[truth])
        if verdict == "wrong":
            text = "ABCD"[(truth + 1) % 4]
        question = "What does she do?" if multimodal else f"What does Ada Person{person} do?"
        samples.append(
            {
                "id": f"q{index:03d}",
                "set": ("forget", "forget", "retain", "general")[index % 4],
                "scenario": scenario,
                "individual": f"f{person:03d}",
                "name": f"Ada Person{person}",
                "modality": "multimodal" if multimodal else "text_only",
                "question": HOSTILE if hostile and index == 1 else question,
                "hint": "",
                "options": [{"letter": "ABCD"[k], "text": texts[k]} for k in range(4)],
                "answer": "ABCD"[truth],
                "picture": _face(person) if multimodal else "",
                "answers": [
                    {"label": "before", "request": 0, "text": "ABCD"[truth], "verdict": "correct"},
                    *(
                        {"label": name, "request": 1, "text": text, "verdict": verdict}
                        for name in methods
                    ),
                ],
            }
        )
    if hostile and samples:
        samples[0]["picture"] = "https://example.org/spy.png"
        samples[0]["name"] = HOSTILE
        answers = samples[0]["answers"]
        assert isinstance(answers, list)
        answers[1]["text"] = HOSTILE * 200
        answers[1]["verdict"] = '"><img src=x onerror=alert(1)>'
    return samples


def _face(seed: int) -> str:
    generator = random.Random(seed)
    shade = tuple(generator.randrange(90, 240) for _ in range(3))
    picture = Image.new("RGB", (48, 48), (210, 222, 235))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((10, 8, 38, 42), fill=shade)
    draw.rectangle((10, 6, 38, 14 + generator.randrange(5)), fill=(60, 40, 20 + seed % 200))
    draw.rectangle((17, 22, 20, 25), fill="black")
    draw.rectangle((28, 22, 31, 25), fill="black")
    draw.line((19, 34, 29, 34), fill=(140, 30, 30), width=2)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
