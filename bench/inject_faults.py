"""Every call that changes a run folder fails, once each, or the command is killed at it.

`python bench/inject_faults.py --stage select --every 4` takes a sample of a part; without options
it takes every call of one stage of each kind in every mode, hours of it. Calls outside the stage's
own folders are the same for all stages and taken with the first. What is promised: one error
without a traceback (or a command that succeeds all the same), a `pulse verify` that passes or names
what is wrong, and the same command again ending with the bytes of the run that nobody disturbed.
See `tests/injection_cases.py`. Needs Linux and a C compiler.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from injection_cases import DISTURBING, NEED_ROOM, RESULTS, WHOLE, Fate, Injection, injection
from pipeline_cases import Server

KINDS = (
    "base.score-",
    RESULTS,
    "select",
    "finetune-",
    "finetuned.ga.unlearn",
    "task_vector.unlearn",
    "request2.unlearn",
    "retain-model-",
)
"""The results, and part of the folder name of one stage of each kind."""


def main() -> None:
    """Disturb, print the table, and exit with 1 if anything is not as promised."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--stage", action="append", help=f"{', '.join(KINDS)}, {WHOLE}; repeatable")
    parser.add_argument("--mode", action="append", choices=DISTURBING, help="repeatable")
    parser.add_argument("--every", type=int, default=1, help="only each so many-th call")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--at", type=Path, default=None, help="where to work, such as /dev/shm")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="injection-", dir=chosen.at) as place:
        root = Path(place)
        with injection(root) as bench, ExitStack() as stack:
            free: SimpleQueue[tuple[Injection, Path]] = SimpleQueue()
            for number in range(chosen.jobs):
                folder = root / f"worker{number}"
                folder.mkdir()
                server = stack.enter_context(Server(folder, preload=root / "injection.so"))
                free.put((bench.with_server(server), folder / "runs" / "tiny"))
            todo = _todo(bench, root / "count" / "tiny", chosen)
            fates = _disturb(
                free, todo, until=time.monotonic() + 60 * chosen.minutes, jobs=chosen.jobs
            )
            states = len(bench.afterwards)
    print(f"{len(fates)} of {len(todo)} done; {states} different run folders were left behind\n")
    print(_table(fates))
    wrong = [fate for fate in fates if fate.wrong]
    sys.exit(1 if wrong else 0)


def _todo(bench: Injection, run: Path, chosen: argparse.Namespace) -> list[tuple[str, str, int]]:
    """Return case, mode and number of each disturbance, mixed, so that a part is a fair sample."""
    found: list[tuple[str, str, int]] = []
    for kind in chosen.stage or KINDS:
        case = kind if kind == WHOLE else next(one for one in bench.cases() if kind in one)
        calls = bench.calls(case, run)
        shared = bool(found) and case != WHOLE
        print(f"{case}: {len(calls)} calls", flush=True)
        for number, call in enumerate(calls, start=1):
            name, _, path = call.partition(" ")
            own = not shared or case == RESULTS or path.startswith("stages/")
            if number % chosen.every or not own:
                continue
            needs_room = name in NEED_ROOM
            modes = [mode for mode in chosen.mode or DISTURBING if mode != "full" or needs_room]
            found += [(case, mode, number) for mode in modes]
    random.Random(0).shuffle(found)
    return found


def _disturb(
    free: SimpleQueue[tuple[Injection, Path]],
    todo: Iterable[tuple[str, str, int]],
    *,
    until: float,
    jobs: int,
) -> list[Fate]:
    def one(disturbance: tuple[str, str, int]) -> Fate | None:
        if time.monotonic() > until:
            return None
        bench, run = free.get()
        try:
            fate = bench.fate(*disturbance, run)
        finally:
            free.put((bench, run))
        if fate.wrong:
            print(f"WRONG {fate}", flush=True)
        return fate

    found = []
    with ThreadPoolExecutor(jobs) as pool:
        for count, fate in enumerate(pool.map(one, todo), start=1):
            if fate is not None:
                found.append(fate)
                if not count % 50:
                    print(
                        f"{time.strftime('%H:%M:%S')} {count} so far\n{_table(found)}", flush=True
                    )
    return found


def _table(fates: Iterable[Fate]) -> str:
    rows: dict[tuple[str, str], list[Fate]] = defaultdict(list)
    for fate in fates:
        rows[fate.mode, fate.call.split()[0]].append(fate)
    lines = [
        "| fault | call | N | ended | verify passes | names the fault | same bytes |",
        "|---|---|---:|---|---:|---:|---:|",
    ]
    for (mode, call), some in sorted(rows.items()):
        ends = Counter(fate.ended for fate in some)
        ended = ", ".join(f"{count} {how}" for how, count in sorted(ends.items()))
        named = sum(bool(fate.verified) for fate in some)
        right = sum(not fate.wrong for fate in some)
        cells = (mode, call, len(some), ended, len(some) - named, named, right)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
