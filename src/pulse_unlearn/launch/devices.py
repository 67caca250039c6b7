"""What stages run on: the machines that `--on` names, their workers, GPUs and memory; no torch."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MIB = 2**20
_ASKED_FOR = 30.0
"""Seconds that nvidia-smi may take."""
_QUERY = ("--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Memory:
    """Something with memory: a GPU, or a machine with its swap space."""

    name: str
    total: int
    """Bytes."""
    free: int
    """Bytes, now."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine, and how many stages are worked on there at a time."""

    workers: int
    memory: Memory | None
    """None where the system does not tell."""
    gpus: tuple[Memory, ...] = ()
    """Those that the workers may use, which they take in turn."""
    untold: int = 0
    """GPUs that do not say what they have."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All machines of an engine."""

    machines: tuple[Machine, ...]

    @property
    def workers(self) -> int:
        """How many stages are worked on at a time; one, if no machine has answered."""
        return sum(one.workers for one in self.machines) or 1


def this_machine(workers: int) -> Machine:
    """Return what this machine has, for so many workers."""
    names = visible_gpus()
    told = _gpus() if names else {}
    gpus = tuple(told[name] for name in names if name in told)
    return Machine(workers, _memory(), gpus, untold=len(names) - len(gpus))


def visible_gpus() -> list[str]:
    """Return the GPUs that a run may use, as `CUDA_VISIBLE_DEVICES` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        nodes = sorted(Path("/proc/driver/nvidia/gpus").glob("*"))
        return [str(place) for place in range(len(nodes))]
    return [one.strip() for one in visible.split(",") if one.strip()]


def _gpus() -> dict[str, Memory]:
    """Ask the driver, as torch would take memory on each GPU that it is asked about."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return {}
    try:
        said = subprocess.run(
            [command, *_QUERY], capture_output=True, text=True, timeout=_ASKED_FOR, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, Memory] = {}
    for line in said.stdout.splitlines():
        index, uuid, name, *sizes = (part.strip() for part in line.split(","))
        if len(sizes) == 2 and all(size.isdecimal() for size in sizes):
            gpu = Memory(f"GPU {index} ({name})", *(int(size) * _MIB for size in sizes))
            found[index] = found[uuid] = gpu
    return found


def _memory() -> Memory | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        told = {name: int(rest.split()[0]) * 1024 for name, _, rest in _parted(lines)}
        total, free = told["MemTotal"], told["MemAvailable"]
    except (OSError, ValueError, KeyError):
        return None
    limit = min([*_limits(), total])
    total, free = limit + told.get("SwapTotal", 0), min(limit, free)
    return Memory(f"memory of {platform.node()}", total, free)


def _parted(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    return (line.partition(":") for line in lines if ":" in line)


def _limits() -> Iterator[int]:
    """Yield what the control groups of this process allow it, as Slurm and containers set them."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, name = (
            (_CGROUPS / "memory", "memory.limit_in_bytes")
            if controllers
            else (_CGROUPS, "memory.max")
        )
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if not folder.is_relative_to(root):
                break
            try:
                said = (folder / name).read_text(encoding="ascii").strip()
            except OSError:
                continue
            if said.isdecimal():
                yield int(said)
