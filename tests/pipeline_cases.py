"""What the pipeline's tests share: a tiny world, a tiny model, and commands that can be killed."""

from __future__ import annotations

import atexit
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

import pulse_unlearn

WORLD = Path(pulse_unlearn.__file__).parent / "assets" / "world"
TESTS = Path(__file__).parent
FICTIONAL = ("f001", "f002", "f003", "f004")
CELEBRITIES = ("c001", "c002", "c003")
QUESTIONS = 6
LIMIT = 300.0
"""Seconds after which a command counts as hung."""


def make_people(root: Path, names: tuple[str, ...] = FICTIONAL + CELEBRITIES) -> Path:
    """A few of the embedded people, as an MLLMU-Bench folder."""
    for source in sorted((WORLD / "people").glob("*/*.parquet")):
        table = pq.read_table(source)
        kept = [name in names for name in table.column("ID").to_pylist()]
        target = root / source.relative_to(WORLD / "people")
        target.parent.mkdir(parents=True)
        pq.write_table(table.filter(pa.array(kept)), target)
    return root


def make_general(root: Path) -> Path:
    """A few of the embedded general questions, and as many to train on beside them."""
    root.mkdir()
    for name in ("mmbench_world", "mmbench_world_train"):
        with (WORLD / "general" / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t"))
        with (root / f"{name}.tsv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows[: QUESTIONS + 1])
    return root / "mmbench_world.tsv"


MAKE_MODEL = """
import sys, torch
from transformers import (AutoProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig,
    LlavaForConditionalGeneration)
processor = AutoProcessor.from_pretrained(sys.argv[2])
tokenizer = processor.tokenizer
ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
vision = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1,
    num_attention_heads=2, image_size=48, patch_size=12, projection_dim=16)
text = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64,
    num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    max_position_embeddings=512, bos_token_id=tokenizer.bos_token_id, **ids)
config = LlavaConfig(vision_config=vision, text_config=text, image_seq_length=16,
    image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=-1, **ids)
torch.manual_seed(0)
model = LlavaForConditionalGeneration(config)
said = tokenizer.convert_tokens_to_ids(["A", "B", "C", "D", tokenizer.eos_token])
with torch.no_grad():
    model.lm_head.weight[said] *= 20  # so that some answers can be read
model.save_pretrained(sys.argv[1])
processor.save_pretrained(sys.argv[1])
"""


def make_model(folder: Path) -> Path:
    """A LLaVA of random weights with the embedded model's tokenizer and processor."""
    return shutil.copytree(_made_model(), folder)


@cache
def _made_model() -> Path:
    folder = Path(mkdtemp(prefix="tiny-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = [sys.executable, "-c", MAKE_MODEL, str(folder), str(WORLD / "model")]
    subprocess.run(command, check=True, env=environment(), capture_output=True, timeout=LIMIT)
    return folder


def settings(root: Path) -> dict[str, Any]:
    """The tiny experiment: every kind of stage, a checkpoint after every step."""
    optimiser = {"learning_rate": 1e-3, "batch_size": 8, "micro_batch_size": 8}
    return {
        "name": "tiny",
        "model": {"source": str(root / "model")},
        "data": {
            "people": {"source": "mllmu", "path": str(root / "people")},
            "general": {"source": "mmbench", "path": str(root / "general" / "mmbench_world.tsv")},
        },
        "scoring": {"general": "vanilla", "max_new_tokens": 3},
        "finetune": {
            "individuals": 4,
            "epochs": 1,
            "replay": 0.25,
            "lora": {"rank": 2, "alpha": 4, "dropout": 0.1},
            "optimiser": {**optimiser, "batch_size": 24, "micro_batch_size": 24},
        },
        "unlearn": {
            "lora": {"rank": 2, "alpha": 4, "dropout": 0.1},
            "optimiser": optimiser,
            # The model knows nothing: with a floor at chance nothing would be left to unlearn.
            "stop": {"max_steps": 3, "check_every": 2, "check_examples": 8, "floor": "none"},
        },
        "methods": {
            "ga": {"scenarios": ["finetuned"], "unlearn": {"stop": {"target_forgetting": 0.9}}},
            "npo": {"scenarios": ["pretrained", "sustainability"], "settings": {"beta": 1.0}},
        },
        "scenarios": {
            "finetuned": {"forget": 2, "retain": 2},
            "pretrained": {"candidates": 3, "forget": 1, "retain": 1},
            "sustainability": {"forget": 2, "retain": 2, "requests": 2},
        },
        "checkpoint_seconds": 0,
    }


def every_door(root: Path) -> dict[str, Any]:
    """A method of each kind, the retain model and an attack, in two requests each."""
    chosen = settings(root)
    llm = {"scope": "llm"}
    chosen["name"] = "doors"
    chosen["scoring"] |= {"people": "vanilla", "words": "none"}  # for time's sake
    chosen["methods"] = {
        "rmu": {"scenarios": ["finetuned"], "settings": {"layer": -1}},
        "task_vector": {"scenarios": ["finetuned"]},
        "manu": {
            "scenarios": ["sustainability"],
            "unlearn": {**llm, "update": "full"},
            "settings": {"batches": 2},
        },
        "gradient_projection": {
            "scenarios": ["sustainability"],
            "unlearn": {**llm, "adapter": "continued"},
            "settings": {"batches": 2},
        },
    }
    chosen["scenarios"]["pretrained"] = None
    chosen["scenarios"]["unseen"] = {"celebrities": 1}
    chosen["evaluations"] = {
        "retain_model": {},
        "relearning": {
            "steps": [1, 3],
            "lora": {"rank": 2, "alpha": 4},
            "optimiser": {"learning_rate": 1e-3, "batch_size": 8, "micro_batch_size": 8},
        },
        "trajectory": {"steps": [1]},
    }
    return chosen


def make_experiment(
    root: Path,
    chosen: Callable[[Path], dict[str, Any]] = settings,
    name: str = "tiny",
    people: tuple[str, ...] = FICTIONAL + CELEBRITIES,
) -> Path:
    make_people(root / "people", people)
    make_general(root / "general")
    make_model(root / "model")
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(chosen(root)), encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def in_own_process(
    *argv: str, cwd: Path | None = None, limit: float = LIMIT
) -> subprocess.CompletedProcess[str]:
    """The command as a user gives it, in a fresh interpreter."""
    command = [sys.executable, "-c", "from pulse_unlearn.cli import main; main()", *argv]
    return subprocess.run(
        command,
        check=False,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=limit,
        cwd=cwd,
    )


@dataclass(frozen=True)
class Ended:
    """How a command ended; a negative code is the signal that killed it."""

    code: int
    output: str
    seconds: float


class Life:
    """One command at work."""

    def __init__(self, server: Server, pid: int, log: Path) -> None:
        self.server, self.pid, self.log = server, pid, log
        self.began = time.monotonic()
        self.code: int | None = None

    def ended(self) -> bool:
        if self.code is None:
            self.code = self.server.ask({"wait": self.pid})
        return self.code is not None

    def wait(self, limit: float = LIMIT) -> Ended:
        until = time.monotonic() + limit
        while not self.ended():
            if time.monotonic() > until:
                self.send(signal.SIGKILL)
                raise AssertionError(f"hung for {limit} s: {self.output()}")
            time.sleep(0.02)
        assert self.code is not None
        return Ended(self.code, self.output(), time.monotonic() - self.began)

    def wait_for(self, pattern: str, folder: Path, limit: float = LIMIT) -> None:
        """Wait until something below `folder` matches."""
        until = time.monotonic() + limit
        while not any(folder.glob(pattern)):
            assert not self.ended(), f"ended before {pattern}: {self.output()}"
            assert time.monotonic() < until, f"no {pattern}: {self.output()}"
            time.sleep(0.005)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


class Server:
    """The process that commands are forked from; a context manager."""

    def __init__(self, logs: Path, preload: Path | None = None) -> None:
        self.logs, self.preload = logs, preload
        self.count = 0
        self.process: subprocess.Popen[str]

    def __enter__(self) -> Server:
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "pipeline_server.py")],
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        _pipe(self.process.stdin).close()
        self.process.wait(timeout=30)
        _pipe(self.process.stdout).close()

    def environment(self) -> dict[str, str]:
        return environment() | ({"LD_PRELOAD": str(self.preload)} if self.preload else {})

    def ask(self, request: dict[str, object]) -> Any:
        target = _pipe(self.process.stdin)
        target.write(json.dumps(request) + "\n")
        target.flush()
        return json.loads(_pipe(self.process.stdout).readline())

    def start(
        self, *argv: str, events: int = 0, mark: str = "", poison: str = "", fault: object = None
    ) -> Life:
        """Begin a command; `events` and `mark`, or `fault`, say what befalls it (server)."""
        request = self.request(*argv, events=events, mark=mark, poison=poison, fault=fault)
        return Life(self, self.ask(request), Path(request["log"]))

    def request(self, *argv: object, **what: object) -> dict[str, Any]:
        self.count += 1
        log = self.logs / f"{self.count}.log"
        return {"argv": [str(argument) for argument in argv], "log": str(log), **what}

    def pulse(self, *argv: str, **options: Any) -> Ended:
        return self.start(*argv, **options).wait()


class Fresh(Server):
    """Starts each command in an interpreter of its own: what the forks are compared with."""

    def pulse(self, *argv: str, fault: object = None, **_: Any) -> Ended:
        request = self.request(*argv, events=0, mark="", poison="", fault=fault)
        command = [sys.executable, str(TESTS / "pipeline_server.py"), json.dumps(request)]
        began = time.monotonic()
        ended = subprocess.run(command, check=False, env=self.environment(), timeout=LIMIT)
        output = Path(request["log"]).read_text(encoding="utf-8")
        return Ended(ended.returncode, output, time.monotonic() - began)


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@dataclass(frozen=True)
class Bench:
    """A tiny experiment, one finished run of it, and the server that runs more."""

    server: Server
    experiment: Path
    finished: Path
    """Run folder of the uninterrupted run: copy it, do not change it."""

    def run(self, runs: Path, *more: str, **options: Any) -> Ended:
        return self.server.pulse(*self.command(runs, *more), **options)

    def start(self, runs: Path, *more: str, **options: Any) -> Life:
        return self.server.start(*self.command(runs, *more), **options)

    def command(self, runs: Path, *more: str) -> tuple[str, ...]:
        return ("run", str(self.experiment), "--runs", str(runs), *more)

    def copied(self, runs: Path) -> Path:
        """A copy of the finished run in another folder of runs."""
        shutil.copytree(self.finished, runs / "tiny")
        return runs / "tiny"


def result_rows(run: Path) -> list[dict[str, str]]:
    """The rows of `results.csv`."""
    with (run / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def computed(ended: Ended) -> list[str]:
    """Names of the stages a command worked on, from its output."""
    lines = [line.split("] ", 1)[1] for line in ended.output.splitlines() if "] " in line]
    return [line.split(": done in")[0] for line in lines if ": done in" in line]


def outcome(run: Path) -> dict[str, bytes]:
    """What must not depend on how often a run was interrupted."""
    kept = {path.name: path.read_bytes() for path in run.glob("results.*")}
    kept["samples.json"] = (run / "samples.json").read_bytes()
    for stage in sorted((run / "stages").iterdir()):
        for name in (
            "adapter*/*",
            "state.safetensors",
            "predictions.parquet",
            "selection.json",
            "outcome.json",
            "asked.json",
        ):
            kept |= {str(p.relative_to(run)): p.read_bytes() for p in stage.glob(name)}
    return kept


def poison(how: str) -> None:
    """Spoil GA's loss: `nan` always, `nan:2` the first two times; `slow` makes it take a minute.

    `room:20` runs out of memory when more than 20 questions are asked at once.
    """
    import torch

    from pulse_unlearn.methods import losses
    from pulse_unlearn.models.fast.packed import Packed

    kind, _, count = how.partition(":")
    ask = Packed.generate

    def crowded(self: Any, examples: Any, **knobs: Any) -> Any:
        if len(examples) > int(count):
            raise torch.OutOfMemoryError("no room")
        return ask(self, examples, **knobs)

    if kind == "room":
        Packed.generate = crowded  # type: ignore[method-assign]
        return
    real = losses.gradient_ascent
    calls = 0

    def poisoned(view: Any) -> Any:
        nonlocal calls
        calls += 1
        if kind == "slow":
            time.sleep(60)
        values = real(view)
        return values * torch.nan if not count or calls <= int(count) else values

    losses.gradient_ascent = poisoned
