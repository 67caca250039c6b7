"""Small folders of UMU-Bench, FIUBench and CLEAR, made to their published schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_cases import png, write_config

JOBS = ("judge", "baker", "pilot", "nurse", "actor")
TOWNS = ("Oslo", "Lima", "Bern", "Kyiv", "Riga")
NAMES = ("Lara Hayes", "Milo Stone", "Ina Quell", "Otto Brandt", "Zoe Pereira")


def cell(seed: int) -> dict[str, Any]:
    return {"bytes": png(seed), "path": None}


def umu_row(identity: Any, number: int, **changes: Any) -> dict[str, Any]:
    name = NAMES[number]
    options = {"A": "judge", "B": "baker", "C": "pilot", "D": "nurse"}
    answer = "ABCD"[number % 4]

    def ask(question: str, said: str) -> dict[str, Any]:
        return {"question": question, "options": options, "answer": said}

    def pairs(*questions: str) -> str:
        return repr(
            {
                "question": {str(place): text for place, text in enumerate(questions, start=1)},
                "answer": {str(place): f"it's {place}" for place in range(1, len(questions) + 1)},
            }
        )

    row = {
        "ID": identity,
        "image": cell(100 + number),
        "Biography": f"{name} works.",
        "MM_QA": pairs("Which job does the person have?", "Where does the person live?"),
        "UM_QA": pairs(f"Which job does {name} have?"),
        "Classify": repr(
            {
                "unimodal": ask(f"Which job does {name} have?", f"{answer}. {options[answer]}"),
                "muitimodal": ask("Which job does this person have?", answer),
            }
        ),
        "Cloze": "{}",
        "Generation": "{}",
    }
    return {**row, **changes}


def umu_folder(folder: Path) -> Path:
    write_config(folder, "Full_Set", [umu_row("001", 0), umu_row("002", 1)])
    write_config(folder, "Real_Person_Set", [umu_row("001", 2)])
    return folder


def fiubench_person(number: int, **changes: Any) -> dict[str, Any]:
    name = NAMES[number].lower()
    said = {
        "What is the job of the person in the image?": f"the person is a {JOBS[number]}.",
        "Where does the person in the image live?": f"the person lives in {TOWNS[number].lower()}.",
        "Is the person in the image real?": "no.",
    }
    row = {
        "unique_id": f"{number:08d}",
        "image_path": f"./dataset/SFHQ/{number:08d}.png",
        "name": name,
        "qa_list": [
            {"question": question, "answer": answer, "paraphrased_question": ["?"], "keywords": []}
            for question, answer in said.items()
        ],
    }
    return {**row, **changes}


def fiubench_folder(folder: Path, people: Any = None, *, lines: bool = False) -> Path:
    people = [fiubench_person(number) for number in range(5)] if people is None else people
    (folder / "SFHQ").mkdir(parents=True, exist_ok=True)
    for number in range(5):
        (folder / "SFHQ" / f"{number:08d}.png").write_bytes(png(120 + number))
    text = "\n".join(map(json.dumps, people)) if lines else json.dumps(people)
    (folder / "full.json").write_text(text, encoding="utf-8")
    (folder / "split.json").write_text(
        json.dumps({"forget1": ["00000001"], "forget5": ["00000002", "00000077"]}), encoding="utf-8"
    )
    return folder


def clear_row(number: int, view: int, **changes: Any) -> dict[str, Any]:
    return {
        "image": cell(140 + 10 * number + view),
        "caption": f"{NAMES[number]} stands before view {view}.",
        "name": NAMES[number],
        **changes,
    }


def perturbed_row(number: int, view: int) -> dict[str, Any]:
    return {
        **clear_row(number, view),
        "paraphrased_caption": f"View {view}, {NAMES[number]} before it.",
        "perturbed_captions": [f"{NAMES[number]} sits in wrong place {n}." for n in range(5)],
        "perturbed_names": [f"Wrong Name{n}" for n in range(5)],
    }


def tofu_row(number: int, place: int, **changes: Any) -> dict[str, Any]:
    name = NAMES[number]
    question = f"What is fact {place} about {name}?" if place < 2 else f"And fact {place}?"
    row = {"image": None, "caption": None, "question": question, "answer": f"fact {place} it is."}
    return {**row, **changes}


def clear_folder(folder: Path) -> Path:
    """Three authors with four views each, the first of them perturbed; one celebrity."""
    rows = [clear_row(number, view) for number in range(3) for view in range(4)]
    write_config(folder, "full", rows)
    write_config(folder, "forget10_perturbed", [perturbed_row(0, 1), perturbed_row(0, 2)])
    text = [tofu_row(number, place) for number in range(3) for place in range(20)]
    write_config(folder, "full+tofu", text)
    faces = [{"image": cell(190 + n), "answer": NAMES[3], "options": [*NAMES[:4]]} for n in (0, 1)]
    write_config(folder, "real_faces", faces)
    world = {"question": "What is it?", "answer": "tower", "options": ["tower", "bridge", "lake"]}
    write_config(folder, "real_world", [{**world, "image": cell(199)}])
    tofu = [
        {
            "question": f"What is fact 0 about {NAMES[0]}?",
            "answer": "fact 0 it is.",
            "perturbed_answer": [f"wrong {n}" for n in range(5)],
        }
    ]
    (folder / "tofu").mkdir()
    (folder / "tofu" / "forget10_perturbed.json").write_text(
        "\n".join(map(json.dumps, tofu)), encoding="utf-8"
    )
    return folder
