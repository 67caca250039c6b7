"""A run folder with invented answers about the embedded world, for tests of the page over runs.

No model was run: what models "say" is chosen, so that every filter has something to find.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pulse_unlearn.data import examples as make
from pulse_unlearn.data import load_general, load_people
from pulse_unlearn.evaluation.scoring import score_all
from pulse_unlearn.evaluation.table import write_predictions, write_scores
from pulse_unlearn.records import RESULT_COLUMNS, Cell, Example, Prediction, key_of
from pulse_unlearn.store import StageKey, Store, fingerprint

FORGET, RETAIN = ("f001", "f002"), ("f003",)
BEFORE, AFTER, RETAIN_MODEL = "seed0/target/score", "seed0/finetuned/ga/score", "seed0/retain/score"
STAGES = {
    BEFORE: "score",
    "seed0/finetuned/ga/unlearn": "unlearn",
    AFTER: "score",
    RETAIN_MODEL: "score",
}
HOSTILE = "<img src=x onerror=alert(1)>\u202e"


@cache
def examples() -> tuple[Example, ...]:
    """Return every form of the questions asked: three people, four general questions."""
    people = [one for one in load_people("world").individuals if one.id in FORGET + RETAIN]
    questions = [question for person in people for question in person.questions]
    questions += load_general("world").general[:4]
    asked = make.circular(questions, profile="short")
    return (*asked, *make.in_words(questions, profile="short"))


def said(example: Example, text: str) -> Prediction:
    """Return the answer `text` to an example; the true option is the likeliest."""
    return Prediction(
        **key_of(example),
        options=example.options,
        answer=example.letter,
        text=text,
        option_log_probs=tuple(
            -0.1 if option.letter == example.letter else -3.0 for option in example.options
        ),
        end_log_probs=tuple(-0.1 for _ in example.option_texts),
        option_tokens=tuple(1 for _ in example.option_texts),
    )


def before(example: Example) -> str:
    """The model before: right in every form."""
    return example.answer


def after(example: Example) -> str:
    """After unlearning: D to everything about D_unlearn; one answer is hostile, one empty."""
    if example.individual not in FORGET:
        return example.answer
    if example.question_id.endswith("f001/text_only/1"):
        return f"{HOSTILE} it is {example.options[0].text}, I think"
    if example.question_id.endswith("f001/text_only/2"):
        return ""
    return "D"


def write_run(run: Path, *, times: int = 1) -> Path:
    """Write a whole run; `times` repeats every question under another id."""
    digests = {f"people/{k}": v for k, v in load_people("world").digests.items()}
    digests |= {f"general/{k}": v for k, v in load_general("world").digests.items()}
    store, planned = Store(run), []
    run.mkdir(parents=True)
    for number, (name, kind) in enumerate(STAGES.items(), start=1):
        key = StageKey(number, name, fingerprint(kind, {"name": name}, data=digests, parents=[]))
        planned.append({"number": number, "name": name, "kind": kind, "folder": key.folder,
                        "fingerprint": key.fingerprint, "parents": []})  # fmt: skip
        folder = store.partial(key)
        if kind == "score":
            speak = {BEFORE: before, AFTER: after}.get(name, before)
            _write_answers(run, folder, key.folder, speak, times)
        else:
            (folder / "outcome.json").write_text("{}")
        store.publish(key, kind=kind, settings={"name": name}, data=digests, parents=[])
    (run / "plan.json").write_text(json.dumps(_plan(run.name, planned)), encoding="utf-8")
    experiment = {"name": run.name, "data": {"people": {"source": "world"}}}
    (run / "experiment.yaml").write_text(yaml.safe_dump(experiment), encoding="utf-8")
    _write_results(run)
    return run


def copy_run(whole: Path, target: Path, *, without: Sequence[str] = ()) -> Path:
    """Copy a whole run; without some stages it has no results and no scores of theirs either."""
    shutil.copytree(whole, target)
    for name in without:
        for path in target.glob(f"*/*-{name.replace('/', '.')}-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if without:
        for path in target.glob("results.*"):
            path.unlink()
    return target


def _write_answers(run: Path, folder: Path, name: str, speak: Any, times: int) -> None:
    answers = [
        replace(
            said(one, speak(one)),
            question_id=f"{one.question_id}{suffix}",
            example_id=f"{one.example_id}{suffix}",
        )
        for turn in range(times)
        for suffix in [f"~{turn}" if turn else ""]
        for one in examples()
    ]
    write_predictions(folder / "predictions.parquet", answers)
    (run / "scores").mkdir(exist_ok=True)
    write_scores(run / "scores" / f"{name}.parquet", score_all(answers))


def _cell(request: int, condition: str = "plain") -> dict[str, Any]:
    return asdict(Cell("finetuned", "ga", "projector+llm", 0, request, condition))


def _plan(name: str, stages: list[dict[str, Any]]) -> dict[str, Any]:
    def group(*ids: str) -> dict[str, Any]:
        return {"ids": list(ids), "selection": "", "part": ""}

    operation = {
        **{"cell": _cell(1), "before": BEFORE, "after": AFTER, "never_knew": RETAIN_MODEL},
        **{"forget": group(*FORGET), "retain": group(*RETAIN), "unseen": []},
        "requests": [group(*FORGET)],
    }
    evaluations = [
        {**_cell(0), "scores": BEFORE, "compared_to": "", "only": AFTER},
        {**_cell(1), "scores": AFTER, "compared_to": BEFORE, "only": ""},
        {**_cell(0, "retain_model"), "scores": RETAIN_MODEL, "compared_to": BEFORE, "only": ""},
    ]
    return {"version": 2, "name": name, "stages": stages, "operations": [operation],
            "evaluations": evaluations}  # fmt: skip


def _write_results(run: Path) -> None:
    row = {**_cell(1), "set": "forget", "modality": "all", "measure": "accuracy", "value": 0.25,
           "low": 0.1, "high": 0.4, "questions": 20, "individuals": 2, "reason": ""}  # fmt: skip
    rows = [row, {**row, **_cell(0), "value": 1.0}, {**row, **_cell(0, "retain_model")}]
    lines = [",".join(RESULT_COLUMNS), *(",".join(str(r[c]) for c in RESULT_COLUMNS) for r in rows)]
    (run / "results.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    verdict = {**_cell(1), "word": "one letter", "why": "D", "remembered": True, "readings": [],
               "letter": {"letter": "D", "one_letter": True}}  # fmt: skip
    content = {"version": 4, "verdicts": [verdict], "over_seeds": [], "paper_findings": [],
               "comparisons": [], "selections": []}  # fmt: skip
    (run / "results.json").write_text(json.dumps(content), encoding="utf-8")
