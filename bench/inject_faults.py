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
import hashlib
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pulse_unlearn
from injection_cases import DISTURBING, NEED_ROOM, RESULTS, WHOLE, Fate, Injection, injection
from pipeline_cases import Fresh, Server

START, FIRST = "start", "base.score-"
KINDS = (
    START,
    FIRST,
    RESULTS,
    "select",
    "finetune-",
    "finetuned.ga.unlearn",
    "task_vector.unlearn",
    "request2.unlearn",
    "retain-model-",
)
"""What a new run does before its first stage, the results, and part of a stage's folder name."""


Disturbance = tuple[str, str, int]
"""Case, mode and number of the call."""


def main() -> None:
    """Disturb, print the table, and exit with 1 if anything is not as promised."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--stage", action="append", help=f"{', '.join(KINDS)}; repeatable")
    parser.add_argument("--mode", action="append", choices=DISTURBING, help="repeatable")
    parser.add_argument("--every", type=int, default=1, help="only each so many-th call")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--at", type=Path, default=None, help="where to work, such as /dev/shm")
    parser.add_argument("--record", type=Path, help="note each one here, as a line of JSON")
    parser.add_argument("--continue", dest="go_on", action="store_true", help="the record")
    parser.add_argument(
        "--fresh", type=int, default=0, help="so many of the record again, without any fork"
    )
    chosen = parser.parse_args()
    record = Record(chosen.record, chosen.go_on)
    with tempfile.TemporaryDirectory(prefix="injection-", dir=chosen.at) as place:
        root = Path(place)
        with injection(root) as bench, ExitStack() as stack:
            if chosen.fresh:
                sys.exit(_differ(bench, root, list(record.fates.values()), chosen.fresh))
            free: SimpleQueue[tuple[Injection, Path]] = SimpleQueue()
            for number in range(chosen.jobs):
                folder = root / f"worker{number}"
                folder.mkdir()
                server = stack.enter_context(Server(folder, preload=root / "injection.so"))
                free.put((bench.with_server(server), folder / "runs" / "tiny"))
            every = _todo(bench, root / "count" / "tiny", chosen)
            todo = [one for one in every if one not in record.fates]
            _disturb(free, todo, record, until=time.monotonic() + 60 * chosen.minutes)
    fates = [record.fates[one] for one in every if one in record.fates]
    wanted, done = Counter(mode for _, mode, _ in every), Counter(fate.mode for fate in fates)
    by_mode = ", ".join(f"{mode}: {done[mode]} of {wanted[mode]}" for mode in wanted)
    print(f"{len(fates)} of {len(every)} done ({by_mode})\n\n{_table(fates)}")
    sys.exit(any(fate.wrong for fate in fates))


class Record:
    """What was done, in a file that a later call continues; refused for another state of the code.

    With a record of the same code the same calls have the same numbers.
    """

    def __init__(self, path: Path | None, go_on: bool) -> None:
        self.path, self.fates = path, dict[Disturbance, Fate]()
        if path is None:
            return
        head = json.dumps({"code": _code()})
        if path.exists() and not go_on:
            raise SystemExit(f"{path} is there: --continue, or another name")
        if not path.exists():
            path.write_text(head + "\n", encoding="utf-8")
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        if first != head:
            raise SystemExit(f"{path} is of other code: begin a new one")
        for line in lines:
            fate = Fate(**json.loads(line))
            self.add(replace(fate, wrong=tuple(fate.wrong)), note=False)

    def add(self, fate: Fate, *, note: bool = True) -> None:
        """Take up one that was done, and note it unless it was read from the file."""
        self.fates[fate.case, fate.mode, fate.number] = fate
        if note and self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(fate)) + "\n")


def _code() -> str:
    """Return a digest of the package's source."""
    digest = hashlib.sha256()
    for path in sorted(Path(pulse_unlearn.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _todo(bench: Injection, run: Path, chosen: argparse.Namespace) -> list[Disturbance]:
    """Return case, mode and number of each disturbance, mixed, so that a part is a fair sample.

    The modes come one after the other.
    """
    found: list[Disturbance] = []
    for kind in chosen.stage or KINDS:
        whole = kind in {START, WHOLE}
        case = WHOLE if whole else next(one for one in bench.cases() if kind in one)
        calls = bench.calls(case, run)
        if kind == START:
            calls = list(takewhile(lambda call: " stages/" not in call, calls))
        print(f"{kind}: {len(calls)} calls", flush=True)
        for number, call in enumerate(calls, start=1):
            name, _, path = call.partition(" ")
            own = whole or kind in {RESULTS, FIRST} or path.startswith("stages/")
            if number % chosen.every or not own:
                continue
            needs_room = name in NEED_ROOM
            modes = [mode for mode in chosen.mode or DISTURBING if mode != "full" or needs_room]
            found += [(case, mode, number) for mode in modes]
    random.Random(0).shuffle(found)
    return sorted(found, key=lambda one: DISTURBING.index(one[1]))


def _disturb(
    free: SimpleQueue[tuple[Injection, Path]],
    todo: Iterable[Disturbance],
    record: Record,
    *,
    until: float,
) -> None:
    def one(disturbance: Disturbance) -> Fate | None:
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

    with ThreadPoolExecutor(free.qsize()) as pool:
        for count, fate in enumerate(pool.map(one, todo), start=1):
            if fate is not None:
                record.add(fate)
                if not count % 50:
                    print(f"{time.strftime('%H:%M:%S')} {count} so far", flush=True)


def _differ(bench: Injection, root: Path, done: list[Fate], count: int) -> int:
    """Do some again, each command in an interpreter of its own; return how many end otherwise."""
    folder, differ = root / "fresh", 0
    folder.mkdir()
    alone = bench.with_server(Fresh(folder, preload=root / "injection.so"))
    alone.afterwards = {}
    for fate in random.Random(0).sample(done, min(count, len(done))):
        again = alone.fate(fate.case, fate.mode, fate.number, folder / "runs" / "tiny")
        same = _nameless(again) == _nameless(fate)
        differ += not same
        print(f"{'as before' if same else 'OTHERWISE'} {again}", flush=True)
    return differ


def _nameless(fate: Fate) -> str:
    """Return all of a fate but the random names of scratch files."""
    return re.sub(r"\.(writing-|tmp)\w+", r".\1", repr(fate))


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
