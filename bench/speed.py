"""The fast path against a plain loop, as ratios in one run: `python bench/speed.py`.

The plain loop is `plain_loop.py`, the models are those of `speed_cases.py`. Beside each ratio of
times stands the ratio of counted floating-point operations: what the fast path could reach if both
sides ran them at one rate. Run it with nothing else on the machine; it writes `ratios` (of the
LLaVA-like shape), `limits` and the seconds into bench/latest.json. Names of models as arguments
time those alone.

Scoring is timed in three ways. Published evaluation lets a model go on for 50 tokens and reads
the first character: rows `score_*` and `circular` have the plain side do that, and the fast side
stop where the same reading is decided. In rows `_whole` both sides generate 50 tokens, which a
reading of the whole answer needs when a model talks on. In rows `_letter` the model says a letter
and ends its turn, so that both sides stop early. NPO is timed with the questions of an epoch coming
again in the next, and `_drawn_anew` with questions that never come again.
"""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from plain_loop import PlainLoop
from speed_cases import Case, embedded, llava_like
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.methods import build_method
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.forward import Plain, Reader
from pulse_unlearn.records import Example, Prediction
from pulse_unlearn.training.objectives import Learning, Unlearning, weighted_sum
from pulse_unlearn.training.references import References
from pulse_unlearn.training.steps import StepData

LATEST = Path(__file__).with_name("latest.json")
PEOPLE, EPOCHS = 2, 2
MOST_TOKENS = 50
REPEATS, LONG_SECONDS = 3, 5.0
CASES: dict[str, Callable[[], Case]] = {
    "llava_like": llava_like,
    "llava_like_small_head": partial(llava_like, vocabulary=2048),
    "embedded": embedded,
}
Work = Callable[[], object]


def teach(case: Case) -> None:
    """Make the model answer with a letter and end there, as an instructed model does."""
    reader = Packed(case.made.model, case.encoder, budget=case.budget)
    optimiser = torch.optim.AdamW(trained(case.made.model), lr=2e-3)
    groups = [*case.mixed, *case.turned]
    examples = [example for group in groups for example in group]
    objective = Learning(reader)
    for step in range(300):
        if step % 20 == 0 and all(one.text in "ABCD" and one.text for one in ask(reader, examples)):
            return
        data = StepData((), tuple(groups[step % len(groups)]))
        weighted_sum(objective.terms(data), data).backward()
        optimiser.step()
        optimiser.zero_grad()
    raise SystemExit("the model did not learn to answer with a letter")


def trained(model: Any) -> list[Tensor]:
    """Return the trained tensors."""
    return [tensor for tensor in model.parameters() if tensor.requires_grad]


def ask(
    reader: Reader, examples: Sequence[Example], *, max_new_tokens: int = MOST_TOKENS
) -> list[Prediction]:
    """Score as the pipeline does."""
    reader.model.eval()
    return predict(
        reader,
        examples,
        batch_size=64,
        max_new_tokens=max_new_tokens,
        on_batch=lambda done, total: None,
    )


def fast_reader(case: Case) -> Packed:
    """Return a reader that remembers nothing: what is paid once is paid inside the timing."""
    return Packed(case.made.model, case.encoder, budget=case.budget)


def fast_answers(case: Case, examples: Sequence[Example], max_new_tokens: int) -> None:
    """Score with a reader that has seen nothing yet."""
    ask(fast_reader(case), examples, max_new_tokens=max_new_tokens)


def fast_operation(case: Case, people: list[list[Example]], method: str) -> None:
    """Unlearn, one person a step."""
    reader = fast_reader(case)
    references = References(case.made, reader)
    objective = Unlearning(reader, build_method(method, {}), "with_end", references, seed=0)
    for examples in people:
        data = StepData(tuple(examples), ())
        weighted_sum(objective.terms(data), data).backward()
        update(case.made.model)


def plain_operation(case: Case, loop: PlainLoop, people: list[list[Example]], method: str) -> None:
    """The same, as published code does it."""
    for examples in people:
        loop.step(examples, method)
        update(case.made.model)


def update(model: Any) -> None:
    """Take a step too small to change an answer."""
    for tensor in trained(model):
        if tensor.grad is not None:  # the projector has none on text-only questions
            with torch.no_grad():
                tensor.add_(tensor.grad, alpha=-1e-9)
            tensor.grad = None


def seconds(work: Work) -> float:
    """Return the median of three runs, or of fewer that took five seconds together."""
    taken: list[float] = []
    while len(taken) < REPEATS and sum(taken) < LONG_SECONDS:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _attention(*shapes: Any, out_shape: Any, **_: Any) -> int:
    return sdpa_flop_count(*shapes[:3])


def _attention_backward(*shapes: Any, out_shape: Any, **_: Any) -> int:
    return sdpa_backward_flop_count(*shapes[:4])


ON_CPUS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Attention on CPUs, which torch counts on accelerators only."""


def operations(work: Work) -> int:
    """Return the floating-point operations of matrix products, convolutions and attention."""
    counter = FlopCounterMode(display=False, custom_mapping=ON_CPUS)
    with counter:
        work()
    return counter.get_total_flops()


def limit_of(plain: Work, fast: Work) -> float:
    """Return the ratio of operations of an equal part of both sides' work.

    To be called before timing: both sides have then paid for what only a first pass pays.
    """
    return operations(plain) / operations(fast)


class Table:
    """Ratios of times and of counted operations, printed as they come."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    def add(self, name: str, slow: float, quick: float, limit: float) -> None:
        """Take both sides' seconds and the ratio of their operations."""
        self.rows[name] = {
            "ratio": round(slow / quick, 2),
            "limit": round(limit, 2),
            "plain_s": round(slow, 3),
            "fast_s": round(quick, 3),
        }
        print(
            f"{name:34s} {slow:8.3f} s {quick:8.3f} s {slow / quick:6.2f} x"
            f"   (operations {limit:5.2f} x)",
            flush=True,
        )


def measure(case: Case) -> tuple[Table, bool]:
    """Fill the table for one model; also tell whether both paths give the same answers."""
    reference = copy.deepcopy(case.made.model)
    loop, table = PlainLoop(case.made.model, case.encoder, reference), Table()
    same = True
    if case.talks_on:
        same = score(case, loop, table, {"_whole": MOST_TOKENS, "": 1})
        teach(case)
    for name, groups, method, epochs in (
        ("unlearn_multimodal", case.shown, "ga", EPOCHS),
        ("unlearn_multimodal_npo", case.shown, "npo", EPOCHS),
        ("unlearn_multimodal_npo_drawn_anew", case.shown, "npo", 1),
        ("unlearn_text", case.named, "ga", EPOCHS),
        ("unlearn_mix", case.mixed, "ga", EPOCHS),
        ("unlearn_mix_npo", case.mixed, "npo", EPOCHS),
    ):
        people, one = groups[:PEOPLE] * epochs, groups[:1] * epochs
        limit = limit_of(
            partial(plain_operation, case, loop, one, method),
            partial(fast_operation, case, one, method),
        )
        slow = seconds(partial(plain_operation, case, loop, people, method))
        quick = seconds(partial(fast_operation, case, people, method))
        table.add(name, slow, quick, limit)
    return table, score(case, loop, table, {"_letter": MOST_TOKENS}) and same


def score(case: Case, loop: PlainLoop, table: Table, endings: Mapping[str, int]) -> bool:
    """Add the rows of scoring; tell whether both paths give the same answers.

    `endings` are of rows, with the tokens that the fast side generates: as many as the plain side,
    or one, where a reading of the first character is decided.
    """
    case.made.model.eval()
    asked = [example for examples in case.shown for example in examples]
    turned = [example for examples in case.turned for example in examples]
    for name, examples, part, sizes in (
        ("score_batch1", asked, case.shown[0], (1,)),
        ("score_best_batch", asked, case.shown[0], (5, 20, 40)),
        ("circular", turned, case.turned[0], (4, 16, 32)),
    ):
        plain = partial(loop.ask, part, min(sizes[-1], len(part)))
        limits = {
            ending: limit_of(plain, partial(fast_answers, case, part, tokens))
            for ending, tokens in endings.items()
        }
        slow = min(seconds(partial(loop.ask, examples, size)) for size in sizes)
        for ending, tokens in endings.items():
            quick = seconds(partial(fast_answers, case, examples, tokens))
            table.add(name + ending, slow, quick, limits[ending])
    return agree(case, [*asked, *turned], next(iter(endings)))


def agree(case: Case, examples: Sequence[Example], ending: str) -> bool:
    """Tell whether both paths say the same, in full and in the first character."""
    plain = ask(Plain(case.made.model, case.encoder), examples)
    found = ask(fast_reader(case), examples)
    first = ask(fast_reader(case), examples, max_new_tokens=1)
    whole = sum(one.text != other.text for one, other in zip(plain, found, strict=True))
    begun = sum(one.text[:1] != other.text[:1] for one, other in zip(plain, first, strict=True))
    print(f"answers{ending}: {whole} of {len(plain)} differ, {begun} in their first character")
    return not whole + begun


def peak(case_name: str, side: str) -> float:
    """Return the MiB that an NPO step on one person's ten questions adds to the process."""
    before = _peak_mib()
    case = CASES[case_name]()
    people = case.mixed[:1] * EPOCHS
    if side == "plain":
        loop = PlainLoop(case.made.model, case.encoder, copy.deepcopy(case.made.model))
        plain_operation(case, loop, people, "npo")
    else:
        fast_operation(case, people, "npo")
    return _peak_mib() - before


def _peak_mib() -> float:
    """Return the largest resident size so far; getrusage would count the parent's as well."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def peaks(case_name: str) -> dict[str, float]:
    """Measure both sides' memory, each in a process of its own."""
    found = {}
    for side in ("plain", "fast"):
        command = [sys.executable, __file__, "peak", case_name, side]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[f"{side}_mib"] = round(float(done.stdout.splitlines()[-1]))
    return {"ratio": round(found["fast_mib"] / found["plain_mib"], 2), **found}


def main(names: Sequence[str]) -> None:
    """Print the tables and write them."""
    for name in names:
        print(f"--- {name}")
        table, same = measure(CASES[name]())
        memory = peaks(name)
        print(f"{'memory_npo':34s} {memory}\nsame answers: {same}", flush=True)
        write(name, {**table.rows, "memory_npo": memory, "same_answers": same})


def write(name: str, table: dict[str, Any]) -> None:
    """Put one model's table into bench/latest.json; the ratios are the LLaVA-like shape's."""
    found = json.loads(LATEST.read_text(encoding="utf-8"))
    found["threads"] = torch.get_num_threads()
    found["speed"] = found.get("speed", {}) | {name: table}
    if name == "llava_like":
        rows = {key: row for key, row in table.items() if isinstance(row, dict)}
        found["ratios"] = {key: row["ratio"] for key, row in rows.items()}
        found["limits"] = {key: row["limit"] for key, row in rows.items() if "limit" in row}
    LATEST.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        print(peak(sys.argv[2], sys.argv[3]))
    else:
        main(sys.argv[1:] or list(CASES))
