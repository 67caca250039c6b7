"""Random inputs against every reader: `python bench/fuzz.py [--inputs 10000] [--seed 0]`.

Experiment files, people folders, MMBench files and answers, parquet tables, adapters and run
folders are made from valid ones by random changes (hypothesis) and given to the real commands.
Whatever they are, a command ends with 0, or refuses with a typed error: no traceback, no hang, no
file written or removed outside, no control character on the terminal, and `pulse verify` names
every change of a run. Prints a line for each kind; what was found lies in --keep, and the exit code
is 1. Each kind has a process of its own, so that a crash of a library is found, too.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HARD_SECONDS = 600
HERE = Path(__file__).parent
SHARES = {
    "experiments": 0.2,
    "people": 0.25,
    "tsv": 0.25,
    "parquet": 0.15,
    "adapters": 0.08,
    "run folders": 0.07,
}
"""Kind -> its part of all inputs."""
WITH_TORCH = {"experiments", "adapters", "run folders"}


@dataclass(slots=True)
class Found:
    """What came of the inputs of one kind."""

    kind: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    seconds: float = 0.0
    details: list[str] = field(default_factory=list)
    """One for each kind of fault at each place of the code."""

    def line(self) -> str:
        """Return a row of the table."""
        faults = ", ".join(f"{count} {name}" for name, count in self.faults.items()) or "0"
        return (
            f"| {self.kind} | {self.inputs:,} | {self.refused:,} | {self.accepted:,} | {faults} "
            f"| {self.slowest:.1f} | {self.seconds:.0f} |"
        )


HEAD = (
    "| kind | inputs | refused with a typed error | accepted | faults | slowest, s | seconds |\n"
    "|---|---|---|---|---|---|---|"
)


def fuzz(kind: str, world: Path, work: Path, *, inputs: int, seed: int | None = None) -> Found:
    """Try so many inputs of a kind and return what was found; without a seed always the same."""
    import hypothesis
    from fuzz_guard import Guard
    from fuzz_kinds import KINDS, Place
    from fuzz_stored import Adapters, RunFolders

    place = Place(world, work / "inside", work / "outside")
    place.inside.mkdir(parents=True, exist_ok=True)
    place.outside.mkdir(exist_ok=True)
    canary = place.outside / "canary.txt"
    canary.write_text("untouched", encoding="utf-8")
    os.chdir(place.inside)
    tempfile.tempdir = str(place.inside)
    if kind in WITH_TORCH:
        _preload()
    guard = _guard(Guard, place.inside)
    kinds = {**KINDS, "adapters": Adapters, "run folders": RunFolders}
    chosen, found = kinds[kind](place, guard), Found(kind)
    seen: set[str] = set()

    def attack(drawn: Any) -> None:
        (work / "last").write_text(repr(drawn), encoding="utf-8", errors="backslashreplace")
        # What no timer of ours reaches, such as a library that never comes back.
        faulthandler.dump_traceback_later(HARD_SECONDS, exit=True)
        found.inputs += 1
        refused = False
        for outcome in chosen.run(drawn):
            fault, detail = outcome.fault, outcome.detail
            if sorted(place.outside.iterdir()) != [canary] or canary.read_text() != "untouched":
                fault, detail = "write outside", f"{sorted(place.outside.iterdir())}"
            found.slowest = max(found.slowest, outcome.seconds)
            refused |= outcome.code != 0
            if fault:
                found.faults[fault] += 1
                if (where := f"{fault} {_where(detail)}") not in seen:
                    seen.add(where)
                    found.details.append(f"{where}\n{detail}\ninput: {drawn!r}"[:20_000])
        found.refused += refused
        found.accepted += not refused

    began = time.perf_counter()
    case = hypothesis.given(chosen.inputs)(attack)
    case = hypothesis.settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        derandomize=seed is None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )(case)
    if seed is not None:
        case = hypothesis.seed(seed)(case)
    case()
    faulthandler.cancel_dump_traceback_later()
    found.seconds = time.perf_counter() - began
    return found


def _preload() -> None:
    """Import what commands would, so that no input is timed with it."""
    import transformers.models.clip.modeling_clip
    import transformers.models.llama.modeling_llama
    import transformers.models.llava.modeling_llava
    import transformers.models.llava.processing_llava  # noqa: F401

    import pulse_unlearn.cli.plan_text
    import pulse_unlearn.pipeline.run
    import pulse_unlearn.pipeline.runners
    import pulse_unlearn.report  # noqa: F401


_GUARDS: dict[Path, Any] = {}


def _guard(kind: Any, inside: Path) -> Any:
    """Return the process's guard: hooks cannot be removed, so each folder has one."""
    if inside not in _GUARDS:
        _GUARDS[inside] = kind(inside)
    return _GUARDS[inside]


def _where(detail: str) -> str:
    """Return the last place of our own code in a traceback, and the error."""
    lines = detail.strip().splitlines()
    own = [line.strip() for line in lines if "pulse_unlearn" in line and line.strip()[:4] == "File"]
    return f"{own[-1] if own else ''} {lines[-1][:60] if lines else ''}"


def make_world(root: Path) -> Path:
    """Write a tiny experiment, data and model, and run it: half a minute."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import pipeline_cases

    experiment = pipeline_cases.make_experiment(root)
    ended = pipeline_cases.in_own_process("run", str(experiment), "--runs", str(root / "runs"))
    if ended.returncode:
        raise SystemExit(f"the tiny run failed:\n{ended.stderr}")
    return root


def in_own_process(kind: str, world: Path, work: Path, inputs: int, seed: int) -> Found:
    """Fuzz one kind in a process of its own; what kills that is a fault, too."""
    work.mkdir(parents=True)
    out = work / "found"
    again = [sys.executable, __file__, "--kind", kind, "--world", str(world), "--work", str(work)]
    own = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLCONFIGDIR": str(work / "inside"),
    }
    command = [*again, "--inputs", str(inputs), "--seed", str(seed)]
    with (work / "log").open("w") as log:
        ended = subprocess.run(command, check=False, env=own, stdout=log, stderr=log)
    if ended.returncode == 0:
        # Written by the process above, into a folder of ours.
        return pickle.loads(out.read_bytes())
    name = signal.Signals(-ended.returncode).name if ended.returncode < 0 else "left"
    log_text = (work / "log").read_text(errors="replace")[-5_000:]
    last = (work / "last").read_text() if (work / "last").exists() else ""
    detail = f"the process was ended: {ended.returncode}\n{log_text}\ninput: {last}"
    return Found(kind, faults=Counter({name: 1}), details=[detail])


def main() -> None:
    """Fuzz all kinds, or those named, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", action="append", choices=list(SHARES), help="its part alone; repeatable"
    )
    parser.add_argument("--world", type=Path, help="made by an earlier call; made anew without it")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="what was found")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.kind:
        found = fuzz(asked.kind, asked.world, asked.work, inputs=asked.inputs, seed=asked.seed)
        (asked.work / "found").write_bytes(pickle.dumps(found))
        return
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-")))
        world = asked.world.resolve() if asked.world else root / "world"
        if not world.exists():
            make_world(world)
        print(HEAD, flush=True)
        everything: list[Found] = []
        for kind in asked.only or SHARES:
            share = max(1, round(asked.inputs * SHARES[kind]))
            found = in_own_process(kind, world, root / kind.replace(" ", "-"), share, asked.seed)
            everything.append(found)
            print(found.line(), flush=True)
            for number, detail in enumerate(found.details):
                asked.keep.mkdir(parents=True, exist_ok=True)
                name = f"{kind.replace(' ', '-')}-{number}.txt"
                (asked.keep / name).write_text(detail, encoding="utf-8", errors="backslashreplace")
    sys.exit(any(found.faults for found in everything))


if __name__ == "__main__":
    main()
