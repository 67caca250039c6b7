"""Where the time of an unlearning operation goes: `python bench/rates.py [MODEL] [QUESTIONS]`.

Profiles the fast side of `speed.py` (MODEL is one of its models, QUESTIONS `shown`, `named` or
`mixed`) and prints the share and the rate of its products: those of the layers, of the adapters
(one side is the rank) and of the head (one side is the vocabulary). What runs at a lower rate than
the layers, and what is not counted at all, is why a ratio of times falls short of operations.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from speed import CASES, EPOCHS, PEOPLE, fast_operation
from speed_cases import SMALL_LORA
from torch.profiler import ProfilerActivity, profile


def kind(name: str, sides: Sequence[int], vocabulary: int) -> str:
    """Return what an operation belongs to; `sides` are those of a product."""
    if "attention" in name:
        return "attention"
    if not sides:
        return "else"
    if SMALL_LORA.rank in sides:
        return "adapters"
    return "head" if vocabulary in sides else "layers"


def main(model: str = "llava_like", questions: str = "mixed") -> None:
    """Print a line for each kind of operation."""
    case = CASES[model]()
    people = getattr(case, questions)[:PEOPLE] * EPOCHS
    vocabulary = case.made.model.config.text_config.vocab_size
    fast_operation(case, people, "ga")
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        fast_operation(case, people, "ga")
    seconds: Counter[str] = Counter()
    operations: Counter[str] = Counter()
    for event in profiled.key_averages(group_by_input_shape=True):
        factors = {"aten::mm": event.input_shapes[:2], "aten::addmm": event.input_shapes[1:3]}
        shapes = factors.get(event.key, [])
        sides = (*shapes[0], shapes[1][1]) if shapes else ()
        of = kind(event.key, sides, vocabulary)
        seconds[of] += event.self_cpu_time_total / 1e6
        if sides:
            operations[of] += 2 * sides[0] * sides[1] * sides[2] * event.count
    total = sum(seconds.values())
    for of, taken in seconds.most_common():
        rate = f"{operations[of] / taken / 1e9:6.1f} GFLOP/s" if operations[of] else ""
        print(f"{of:10s} {taken:7.3f} s {taken / total:6.1%} {rate}")


if __name__ == "__main__":
    main(*sys.argv[1:])
