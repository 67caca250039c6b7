"""LLaVA-1.5's shapes on an accelerator: `python bench/device.py 7b 13b`.

Random weights in bfloat16 with the paper's LoRA (rank 128): one unlearning operation of each method
and one scoring pass over a hundred questions (ten people, five of each modality), with seconds,
tokens a second, peak memory and the share of the rate that plain matrix products reach here. Writes
them to bench/latest.json under `devices`. Without an accelerator only `small` fits, on the CPU.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from speed import LATEST, ask, fast_backend, operations, trained
from speed_cases import SIZES, Case, random_llava

from pulse_unlearn.config import LoraSettings
from pulse_unlearn.data.variants import Variants
from pulse_unlearn.methods import METHODS, build_method
from pulse_unlearn.models.fast.packing import pack
from pulse_unlearn.training.objectives import Unlearning, weighted_sum
from pulse_unlearn.training.references import References
from pulse_unlearn.training.steps import StepData

PEOPLE = 10
PAPER_LORA = LoraSettings(rank=128, alpha=256)


@dataclass(frozen=True, slots=True)
class Place:
    """Where and in which numbers a model runs."""

    device: str
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """What the table calls it."""
        return torch.cuda.get_device_name() if self.device == "cuda" else "CPU"

    def wait(self) -> None:
        """Let everything finish that was asked for."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak_mib(self) -> float | None:
        """Return the largest memory since the last look; None on a CPU."""
        if self.device != "cuda":
            return None
        found = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
        return round(found)


def matmul_rate(place: Place, *, size: int) -> float:
    """Return the operations a second of square matrix products, the best of five."""
    one = torch.randn(size, size, device=place.device, dtype=place.dtype)
    best = min(timed(place, lambda: one @ one) for _ in range(5))
    return 2 * size**3 / best


def timed(place: Place, work: Callable[[], object]) -> float:
    """Return the seconds a piece of work takes."""
    place.wait()
    started = time.perf_counter()
    work()
    place.wait()
    return time.perf_counter() - started


def operation(case: Case, method: str) -> None:
    """Unlearn ten people once, one person a step; others of them are the retain batch."""
    backend = fast_backend(case)
    references = References(case.made, backend)
    forms = Variants(case.people, case.people, profile="short", seed=0)
    objective = Unlearning(backend, build_method(method, {}), "with_end", references, 0, forms)
    optimiser = torch.optim.AdamW(trained(case.made.model), lr=1e-6)
    people = case.mixed[:PEOPLE]
    for number, examples in enumerate(people):
        others = people[(number + 1) % len(people)] if objective.loss.needs.retain else ()
        data = StepData(tuple(examples), tuple(others))
        weighted_sum(objective.terms(data), data).backward()
        optimiser.step()
        optimiser.zero_grad()


def tokens(case: Case) -> int:
    """Return the tokens of a hundred questions as they are packed."""
    count = 0
    for examples in case.mixed[:PEOPLE]:
        lines = case.encoder.lines(examples, tokens="with_end")
        packed = pack(lines, budget=case.budget, pad=0)
        count += int(packed.sees.diagonal(dim1=-2, dim2=-1).sum())
    return count


def measure(name: str, place: Place) -> dict[str, Any]:
    """Return the table of one size."""
    size, where = SIZES[name], {"device": place.device, "dtype": place.dtype}
    case = random_llava(size, lora=PAPER_LORA, people=PEOPLE, **where)
    rate = matmul_rate(place, size=8192 if place.device == "cuda" else 1024)
    asked = [example for examples in case.mixed[:PEOPLE] for example in examples]
    works: dict[str, Callable[[], object]] = {
        name: (lambda method=name: operation(case, method))
        for name, method in METHODS
        if hasattr(method, "terms")
    }
    works["score"] = lambda: ask(fast_backend(case), asked)
    rows: dict[str, Any] = {"matmul_tflops": round(rate / 1e12, 3)}
    for work_name, work in works.items():
        work()  # the first pass pays for memory and kernels
        place.peak_mib()
        seconds = timed(place, work)
        peak, counted = place.peak_mib(), operations(work)
        rows[work_name] = {
            "seconds": round(seconds, 3),
            "questions_per_s": round(len(asked) / seconds, 2),
            "tokens_per_s": round(tokens(case) / seconds),
            "peak_mib": peak,
            "share_of_matmul": round(counted / seconds / rate, 3),
        }
        print(f"{name:6s} {work_name:10s} {rows[work_name]}", flush=True)
    return rows


def main(names: Sequence[str], latest: Path = LATEST) -> None:
    """Measure each size and write the tables."""
    place = (
        Place("cuda", torch.bfloat16) if torch.cuda.is_available() else Place("cpu", torch.float32)
    )
    if place.device == "cpu" and set(names) != {"small"}:
        sys.exit("no accelerator here: only `small` fits, for a look at what is measured")
    found = json.loads(latest.read_text(encoding="utf-8"))
    tables = {name: measure(name, place) for name in names}
    kept = found.setdefault("devices", {}).setdefault(place.name, {})
    kept.update(tables)
    latest.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:] or ["7b", "13b"])
