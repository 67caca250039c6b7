"""An export is loaded again by plain transformers and PEFT, and must give the stored answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pulse_unlearn.data.images import decode
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.evaluation.table import read_predictions
from pulse_unlearn.export import plain_check
from pulse_unlearn.export.finished import ChosenModel, FinishedRun
from pulse_unlearn.export.weights import BASE, Written
from pulse_unlearn.models.checkpoints import is_offline
from pulse_unlearn.pipeline.asked import PREDICTIONS, stage_examples
from pulse_unlearn.records import Example, Prediction

NATS = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.3}
"""Largest difference that is rounding, for each token, by the coarser of the precisions the
answers were stored in and are now given in."""
SHARE = {"float32": 1e-4, "float16": 0.01, "bfloat16": 0.03}
"""The same as a share of the log-probability: broken models write very unlikely ones."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """What the check found; there is none for an export that failed it."""

    questions: int
    equal: int
    """Answers equal to the stored ones; the others are ties that rounding broke."""
    largest: float
    """Largest difference of an option's log-probability, nats a token."""


@dataclass(frozen=True, slots=True)
class _Asked:
    example: Example
    stored: Prediction


def check_export(
    run: FinishedRun,
    model: ChosenModel,
    folder: Path,
    written: Written,
    *,
    dtype: str,
    questions: int,
) -> Checked:
    """Ask the export some of the stored questions in a fresh process.

    Raises ModelError if it cannot be loaded, or if an answer or the log-probability of an option is
    another than the stored one by more than rounding.
    """
    sample = _sample(run, model, questions)
    settings = run.inputs.experiment.model
    with tempfile.TemporaryDirectory(prefix="pulse-export-") as private:
        place = Path(private)
        task = _task(run, folder, written, dtype) | {
            "questions": [_question(one, written, place) for one in sample]
        }
        found = _answers(task, place, offline=is_offline(settings))
    dtypes = (settings.dtype, dtype)
    nats, share = max(NATS[one] for one in dtypes), max(SHARE[one] for one in dtypes)
    faults = [
        fault
        for one, answer in zip(sample, found, strict=True)
        for fault in _faults(one, answer, written, nats, share)
    ]
    if faults:
        shown = "\n".join(f"    {fault}" for fault in faults[:_SHOWN])
        raise ModelError(
            Problem(
                "the export does not give the answers that were scored, and was removed",
                model.score.name,
                got=f"{len(faults)} differences in {len(sample)} questions, such as\n{shown}",
                allowed=f"the same answers; {nats} nats a token, or {100 * share:g} %",
            )
        )
    gaps = [gap for one, answer in zip(sample, found, strict=True) for gap in _gaps(one, answer)]
    equal = sum(
        answer["text"] == one.stored.text for one, answer in zip(sample, found, strict=True)
    )
    return Checked(len(sample), equal, max(gaps, default=0.0))


def _sample(run: FinishedRun, model: ChosenModel, count: int) -> list[_Asked]:
    """Return so many of the questions a model was asked, always the same ones."""
    stored = read_predictions(run.folder_of(model.score.name) / PREDICTIONS)
    examples = {one.example_id: one for one in stage_examples(run.inputs, model.score, run.resolve)}
    ranked = sorted(stored, key=lambda one: sha256(one.example_id.encode()).digest())
    return [_Asked(examples[one.example_id], one) for one in ranked[:count]]


def _task(run: FinishedRun, folder: Path, written: Written, dtype: str) -> dict[str, Any]:
    experiment, encoder = run.inputs.experiment, written.encoder
    beside = folder / BASE
    return {
        "folder": str(folder),
        "base": written.base and str(beside if beside.is_dir() else written.base),
        "revision": experiment.model.revision,
        "dtype": dtype,
        "attention": experiment.model.attention,
        "device": experiment.model.device,
        "max_new_tokens": experiment.scoring.max_new_tokens,
        "end_ids": encoder.end_ids,
        "answer_type": int(encoder.family.attention == "prefix"),
    }


def _question(one: _Asked, written: Written, place: Path) -> dict[str, Any]:
    """Return a question as the fresh process is given it; its picture is written to `place`."""
    example, stored = one.example, one.stored
    template = written.encoder.chat_template
    shown = ""
    if example.picture:
        path = place / f"{example.picture.digest}.png"
        if not path.exists():
            decode(example.picture).save(path)
        shown = str(path)
    texts = example.option_texts or [option.letter for option in example.options]
    end = template.end if example.option_texts else ""
    return {
        "id": example.example_id,
        "text": example.prompt,
        "system": example.system,
        "picture": shown,
        "letters": not example.option_texts,
        "continuations": [template.prefix + text + end for text in texts],
        "stored": template.prefix + stored.text + ("" if stored.cut_off else template.end),
    }


def _answers(task: Mapping[str, Any], place: Path, *, offline: bool) -> list[dict[str, Any]]:
    asked, said = place / "questions.json", place / "answers.json"
    asked.write_text(json.dumps(task), encoding="utf-8")
    environment = {**os.environ, **({"HF_HUB_OFFLINE": "1"} if offline else {})}
    # -P: what stands beside the script must not be taken for a library.
    command = [sys.executable, "-P", str(plain_check.__file__), str(asked), str(said)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0 or not said.is_file():
        last = "\n".join(done.stderr.strip().splitlines()[-_SHOWN:])
        raise ModelError(
            Problem(
                "the export cannot be loaded by transformers and PEFT alone, and was removed",
                got=last or f"exit code {done.returncode}",
            )
        )
    answers: list[dict[str, Any]] = json.loads(said.read_text(encoding="utf-8"))
    return answers


def _faults(
    one: _Asked, answer: Mapping[str, Any], written: Written, nats: float, share: float
) -> Iterator[str]:
    """Yield what differs by more than rounding."""
    example, stored = one.example, one.stored
    name = example.example_id
    if answer["prompt"] != written.encoder.prompt(example):
        yield f"{name}: the chat template writes another prompt"
    same = answer["text"] == stored.text and answer["ended"] != stored.cut_off
    gap = answer["gap"]
    if not same and (gap is None or gap > nats):
        yield f"{name}: answers {answer['text']!r}, stored is {stored.text!r}"
    values = (*stored.option_log_probs, *stored.end_log_probs)
    for value, new, tokens in zip(
        values, (*answer["log_probs"], *answer["ends"]), _lengths(stored), strict=True
    ):
        # Also true where one is not a number.
        if not abs(new - value) <= max(nats * tokens, share * abs(value)):
            yield f"{name}: an option's log-probability is {new:.4f}, stored is {value:.4f}"


def _gaps(one: _Asked, answer: Mapping[str, Any]) -> Iterator[float]:
    values = (*one.stored.option_log_probs, *one.stored.end_log_probs)
    new = (*answer["log_probs"], *answer["ends"])
    for value, other, tokens in zip(values, new, _lengths(one.stored), strict=True):
        yield abs(other - value) / tokens


def _lengths(stored: Prediction) -> Sequence[int]:
    """Return the tokens of each log-probability: of options, then of the ends behind them."""
    tokens = stored.option_tokens or (1,) * len(stored.option_log_probs)
    return (*tokens, *(1,) * len(stored.end_log_probs))
