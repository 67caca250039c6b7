"""The fast path against a plain loop, as ratios in one run: `python bench/speed.py`.

The plain loop is `plain_loop.py`, the models are those of `speed_cases.py`. Beside each ratio of
times stands the ratio of counted floating-point operations: what the fast path could reach if both
sides ran them at one rate. Both sides are timed in turn, five times; the median ratio and its range
are told, and a warning if something else runs. It writes `ratios` (of the LLaVA-like shape),
`limits` and the seconds into bench/latest.json. Names of models as arguments time those alone,
`--rows NAME ...` those rows alone.

Scoring is timed in three ways. Published evaluation lets a model go on for 50 tokens and reads
the first character: rows `score_*` and `circular` have the plain side do that, and the fast side
stop where the same reading is decided. In rows `_whole` both sides generate 50 tokens, which a
reading of the whole answer needs when a model talks on. In rows `_letter` the model says a letter
and ends its turn, so that both sides stop early. NPO is timed with the questions of an epoch coming
again in the next, and `_drawn_anew` with questions that never come again.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pairs import PAIRS, Neighbours, paired, seconds
from plain_loop import PlainLoop
from speed_cases import Case, embedded, llava_like
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.methods import build_method
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.forward import Backend, Plain
from pulse_unlearn.records import Example, Prediction
from pulse_unlearn.training.objectives import Learning, Unlearning, weighted_sum
from pulse_unlearn.training.references import References
from pulse_unlearn.training.steps import StepData

LATEST = Path(__file__).with_name("latest.json")
PEOPLE, EPOCHS = 2, 2
MOST_TOKENS = 50
CASES: dict[str, Callable[[], Case]] = {
    "llava_like": llava_like,
    "llava_like_small_head": partial(llava_like, vocabulary=2048),
    "embedded": embedded,
}
Work = Callable[[], object]


def teach(case: Case) -> None:
    """Make the model answer with a letter and end there, as an instructed model does."""
    backend = Packed(case.made.model, case.encoder, budget=case.budget)
    optimiser = torch.optim.AdamW(trained(case.made.model), lr=2e-3)
    groups = [*case.mixed, *case.turned]
    examples = [example for group in groups for example in group]
    objective = Learning(backend)
    for step in range(300):
        if step % 20 == 0 and all(
            one.text in "ABCD" and one.text for one in ask(backend, examples)
        ):
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
    backend: Backend, examples: Sequence[Example], *, max_new_tokens: int = MOST_TOKENS
) -> list[Prediction]:
    """Score as the pipeline does."""
    backend.model.eval()
    return predict(
        backend,
        examples,
        batch_size=64,
        max_new_tokens=max_new_tokens,
        on_batch=lambda done, total: None,
    )


def fast_backend(case: Case) -> Packed:
    """Return a backend that remembers nothing: what is paid once is paid inside the timing."""
    return Packed(case.made.model, case.encoder, budget=case.budget)


def fast_answers(case: Case, examples: Sequence[Example], max_new_tokens: int) -> None:
    """Score with a backend that has seen nothing yet."""
    ask(fast_backend(case), examples, max_new_tokens=max_new_tokens)


def fast_operation(case: Case, people: list[list[Example]], method: str) -> None:
    """Unlearn, one person a step."""
    backend = fast_backend(case)
    references = References(case.made, backend)
    objective = Unlearning(backend, build_method(method, {}), "with_end", references, seed=0)
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

    def __init__(self, rows: Sequence[str], pairs: int) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.pairs = pairs
        self._asked = frozenset(rows)

    def wants(self, name: str) -> bool:
        """Tell whether a row is to be measured."""
        return not self._asked or name in self._asked

    def add(self, name: str, plain: Work, fast: Work, limit: float) -> None:
        """Time both sides in turn, and take the ratio of their operations."""
        found = paired(plain, fast, pairs=self.pairs)
        slow, quick = statistics.median(found.first), statistics.median(found.second)
        low, high = found.spread
        self.rows[name] = {
            "ratio": round(found.ratio, 2),
            "range": [round(low, 2), round(high, 2)],
            "limit": round(limit, 2),
            "plain_s": round(slow, 3),
            "fast_s": round(quick, 3),
        }
        print(
            f"{name:34s} {slow:8.3f} s {quick:8.3f} s {found.ratio:6.2f} x"
            f" ({low:.2f} to {high:.2f})   (operations {limit:5.2f} x)",
            flush=True,
        )


def measure(case: Case, table: Table) -> bool:
    """Fill the table for one model; tell whether both paths give the same answers."""
    reference = copy.deepcopy(case.made.model)
    loop = PlainLoop(case.made.model, case.encoder, reference)
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
        if not table.wants(name):
            continue
        people, one = groups[:PEOPLE] * epochs, groups[:1] * epochs
        limit = limit_of(
            partial(plain_operation, case, loop, one, method),
            partial(fast_operation, case, one, method),
        )
        table.add(
            name,
            partial(plain_operation, case, loop, people, method),
            partial(fast_operation, case, people, method),
            limit,
        )
    return score(case, loop, table, {"_letter": MOST_TOKENS}) and same


def score(case: Case, loop: PlainLoop, table: Table, endings: Mapping[str, int]) -> bool:
    """Add the rows of scoring; tell whether both paths give the same answers.

    `endings` are of rows, with the tokens that the fast side generates: as many as the plain side,
    or one, where a reading of the first character is decided. The plain side has the size of
    batches that is quickest in one try.
    """
    case.made.model.eval()
    asked = [example for examples in case.shown for example in examples]
    turned = [example for examples in case.turned for example in examples]
    for name, examples, part, sizes in (
        ("score_batch1", asked, case.shown[0], (1,)),
        ("score_best_batch", asked, case.shown[0], (5, 20, 40)),
        ("circular", turned, case.turned[0], (4, 16, 32)),
    ):
        wanted = {ending: many for ending, many in endings.items() if table.wants(name + ending)}
        if not wanted:
            continue
        plain = partial(loop.ask, part, min(sizes[-1], len(part)))
        limits = {
            ending: limit_of(plain, partial(fast_answers, case, part, tokens))
            for ending, tokens in wanted.items()
        }
        tried = {size: seconds(partial(loop.ask, examples, size)) for size in sizes[:-1]}
        best = min(tried, key=tried.__getitem__, default=sizes[-1])
        if tried and seconds(partial(loop.ask, examples, sizes[-1])) < tried[best]:
            best = sizes[-1]
        for ending, tokens in wanted.items():
            table.add(
                name + ending,
                partial(loop.ask, examples, best),
                partial(fast_answers, case, examples, tokens),
                limits[ending],
            )
    return agree(case, [*asked, *turned], next(iter(endings)))


def agree(case: Case, examples: Sequence[Example], ending: str) -> bool:
    """Tell whether both paths say the same, in full and in the first character."""
    plain = ask(Plain(case.made.model, case.encoder), examples)
    found = ask(fast_backend(case), examples)
    first = ask(fast_backend(case), examples, max_new_tokens=1)
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


def main(argv: Sequence[str]) -> None:
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(CASES))
    parser.add_argument("--rows", nargs="+", default=(), metavar="ROW", help="measure these alone")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    asked = parser.parse_args(argv)
    if unknown := sorted(set(asked.models) - CASES.keys()):
        parser.error(f"no such models: {', '.join(unknown)}; there are {', '.join(CASES)}")
    for name in asked.models or CASES:
        print(f"--- {name}")
        table, neighbours = Table(asked.rows, asked.pairs), Neighbours()
        same = measure(CASES[name](), table)
        neighbours.warn()
        if not table.rows and "memory_npo" not in asked.rows:
            parser.error(f"no such rows: {', '.join(asked.rows)}")
        found: dict[str, Any] = {**table.rows, "same_answers": same}
        if not asked.rows or "memory_npo" in asked.rows:
            found["memory_npo"] = peaks(name)
            print(f"{'memory_npo':34s} {found['memory_npo']}", flush=True)
        print(f"same answers: {same}", flush=True)
        write(name, found)


def write(name: str, table: dict[str, Any]) -> None:
    """Put one model's table into bench/latest.json; the ratios are the LLaVA-like shape's."""
    found = json.loads(LATEST.read_text(encoding="utf-8"))
    found["threads"] = torch.get_num_threads()
    table = found.get("speed", {}).get(name, {}) | table  # other rows stay
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
        main(sys.argv[1:])
