"""Lets the N-th call that changes a run folder fail, or kill the command, and sees what is left.

The calls are counted by a library loaded before all others (`injection_shim.c`), so that those of
safetensors (Rust) count like Python's own: open for writing, write, fsync, rename, unlink, rmdir,
mkdir and truncate. Needs Linux and a C compiler. One tiny run is made undisturbed; a *case* is a
copy of it with one stage taken out, or with none and the results taken out. The stages beside it
stay, so that a case takes a second and not a whole run; `WHOLE` is the run from nothing.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_cases import Ended, Server, computed, make_experiment, settings
from pulse_unlearn.store import INDEX, read_manifest, verify
from pulse_unlearn.store.leases import CLAIM
from pulse_unlearn.store.products import FOLDERS, PRODUCTS
from pulse_unlearn.store.stages import stage_folders

MODES = {"count": (0, 0), "error": (1, errno.EIO), "full": (2, errno.ENOSPC), "kill": (3, 0)}
"""Nothing; EIO once; ENOSPC from then on in all calls that need room; kill -9, in half a write."""
DISTURBING = ("error", "full", "kill")
NEED_ROOM = ("open", "write", "fsync", "mkdir", "truncate")

Chosen = Callable[[Path], dict[str, Any]]
RESULTS = "results"
WHOLE = "whole"


def obstacle() -> str:
    """Return why calls cannot be intercepted here; empty if they can."""
    if sys.platform != "linux":
        return "LD_PRELOAD is Linux's"
    return "" if shutil.which("cc") else "no C compiler (cc)"


def build_shim(folder: Path) -> Path:
    target = folder / "injection.so"
    source = Path(__file__).with_name("injection_shim.c")
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(target), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return target


def every_kind(root: Path) -> dict[str, Any]:
    """The tiny experiment with a full update, a procedure of phases and the retain model."""
    chosen = settings(root)
    # No answers in words: they take time and write nothing of their own.
    chosen["scoring"] |= {"people": "vanilla", "words": "none"}
    chosen["methods"]["ga"]["unlearn"] |= {"update": "full", "scope": "llm"}
    chosen["methods"]["task_vector"] = {"scenarios": ["finetuned"]}
    # One step of fine-tuning: unlearning has the checkpoints, and more of them than are kept.
    chosen["finetune"]["optimiser"] |= {"batch_size": 128, "micro_batch_size": 128}
    chosen["evaluations"] = {"retain_model": {}}
    return chosen


def smallest(root: Path) -> dict[str, Any]:
    """Part of it that takes two seconds: fine-tuning and one full update, nothing else."""
    chosen = every_kind(root)
    chosen["methods"] = {"ga": chosen["methods"]["ga"]}
    chosen["scenarios"] = {"finetuned": chosen["scenarios"]["finetuned"]}
    chosen["scenarios"] |= {"pretrained": None, "sustainability": None}
    del chosen["evaluations"]
    return chosen


@dataclass(frozen=True)
class Fate:
    """What became of one disturbed command, and of the same command afterwards."""

    case: str
    mode: str
    number: int
    call: str
    """Kind of the call and its path in the run folder."""
    ended: str
    """`typed` (one error, no traceback), `harmless` (the command succeeded) or `killed`."""
    verified: str
    """What `pulse verify` names; empty if it passes."""
    wrong: tuple[str, ...]
    """What is not as promised."""

    def __str__(self) -> str:
        head = f"{self.case}: {self.mode} at call {self.number}, {self.call}: {self.ended}"
        return "\n".join([head, *self.wrong])


class Injection:
    """An undisturbed run, and the means to disturb others."""

    def __init__(self, server: Server, root: Path, chosen: Chosen = every_kind) -> None:
        self.server = server
        self.experiment = make_experiment(root, chosen)
        self.expected = root / "expected" / "tiny"
        self.expected.parent.mkdir()
        ended, _ = self._run(self.expected, "count")
        assert ended.code == 0, ended.output
        self.truth = contents(self.expected)
        self.afterwards: dict[str, tuple[str, tuple[str, ...]]] = {}

    def with_server(self, server: Server) -> Injection:
        """The same by another process, for work side by side."""
        other = copy.copy(self)
        other.server = server
        return other

    def cases(self) -> list[str]:
        """Return `RESULTS` and the folders of all stages, in the order of the plan."""
        return [RESULTS, *(path.name for path in stage_folders(self.expected))]

    def calls(self, case: str, run: Path) -> list[str]:
        """Return every call of an undisturbed case, such as `rename results.csv`."""
        self._prepare(run, case)
        ended, calls = self._run(run, "count")
        assert ended.code == 0, ended.output
        assert contents(run) == self.truth
        return calls

    def fate(self, case: str, mode: str, number: int, run: Path) -> Fate:
        """Disturb the call of this number, verify, and give the same command again."""
        self._prepare(run, case)
        ended, calls = self._run(run, mode, number)
        how, wrong = _ending(ended, mode)
        if how == "harmless":
            # A claim that could not be removed goes with the next command.
            wrong += [one for one in self._differences(run) if f"/{CLAIM}" not in one]
        # What comes next depends on the folder alone, and many calls leave the same one behind.
        state = state_of(run)
        if state not in self.afterwards:
            self.afterwards[state] = self._after(run)
        verified, after = self.afterwards[state]
        return Fate(case, mode, number, *calls[:1], how, verified, (*wrong, *after))

    def _prepare(self, run: Path, case: str) -> None:
        shutil.rmtree(run.parent, ignore_errors=True)
        run.parent.mkdir()
        if case == WHOLE:
            return
        products = (*PRODUCTS, *FOLDERS, INDEX, ".results.json", ".report.json")
        without = shutil.ignore_patterns(*products) if case == RESULTS else None
        shutil.copytree(self.expected, run, ignore=without)
        if case != RESULTS:
            shutil.rmtree(run / "stages" / case)

    def _run(self, run: Path, mode: str, number: int = 0) -> tuple[Ended, list[str]]:
        log = run.parent / "calls.log"
        how, error = MODES[mode]
        fault = {"folder": str(run), "log": str(log), "call": number, "mode": how, "error": error}
        command = ("run", self.experiment, "--runs", run.parent)
        ended = self.server.pulse(*command, fault=fault)
        return ended, log.read_text(encoding="utf-8").splitlines()

    def _after(self, run: Path) -> tuple[str, tuple[str, ...]]:
        """Verify and give the same command again; return what was named, and what is wrong."""
        finished = {name: read_manifest(run / name).name for name in _finished(run)}
        verified, wrong = self.server.pulse("verify", run), []
        if verified.code not in {0, 1} or "Traceback" in verified.output:
            wrong.append(f"verify ended with {verified.code}: {verified.output}")
        again, _ = self._run(run, "count")
        if again.code != 0:
            wrong.append(f"the same command ended with {again.code}: {again.output}")
        wrong += self._differences(run)
        twice = sorted(set(finished.values()) & set(computed(again)))
        wrong += [f"finished, but computed again: {name}" for name in twice]
        named = verified.output.strip().replace(f"{run}/", "").replace(str(run), "RUN")
        return named if verified.code else "", tuple(wrong)

    def _differences(self, run: Path) -> list[str]:
        found = contents(run)
        names = sorted(found.keys() | self.truth.keys())
        other = [
            f"other bytes: {name}" for name in names if found.get(name) != self.truth.get(name)
        ]
        return [*other, *map(str, verify(run))]


def _ending(ended: Ended, mode: str) -> tuple[str, list[str]]:
    if mode == "kill" and ended.code == -signal.SIGKILL:
        return "killed", []
    if "Traceback" in ended.output:
        return "traceback", [ended.output]
    if ended.code == 0:
        return "harmless", []
    told = ended.output.count("error: ") == 1 and ended.code == 1
    return ("typed", []) if told else (f"code {ended.code}", [ended.output])


def _finished(run: Path) -> list[str]:
    return [f"stages/{path.name}" for path in stage_folders(run)] if run.is_dir() else []


def contents(run: Path) -> dict[str, bytes]:
    """Return every file of a run folder that is part of the run."""
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and not _aside(path, run)
    }


def _aside(path: Path, run: Path) -> bool:
    """Tell whether a file only says who held a lock, or how long something took."""
    return path.name.endswith("-holder.json") or path.relative_to(run).parts[0] == "logs"


def state_of(run: Path) -> str:
    """Return a digest of names and bytes; the random names of scratch files do not count."""
    digest = hashlib.sha256()
    for path in sorted(run.rglob("*")):
        if _aside(path, run):
            continue
        name = re.sub(r"\.(writing-|tmp)\w+", r".\1", path.relative_to(run).as_posix())
        content = path.read_bytes() if path.is_file() else b"folder"
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


@contextmanager
def injection(root: Path, chosen: Chosen = every_kind) -> Iterator[Injection]:
    """Everything that a test or `bench/inject_faults.py` needs, in an empty folder."""
    with Server(root, preload=build_shim(root)) as server:
        yield Injection(server, root, chosen)
