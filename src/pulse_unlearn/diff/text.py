"""What differs, as lines of ASCII that fit a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from pulse_unlearn.diff.answers import Flip, Flips, Side
from pulse_unlearn.diff.choice import most_different
from pulse_unlearn.diff.compare import Diff, cell_title
from pulse_unlearn.diff.numbers import Gap, Key
from pulse_unlearn.diff.settings import Change
from pulse_unlearn.records import Cell
from pulse_unlearn.report.words import reading_title, set_title
from pulse_unlearn.texts import plain

WIDTH = 80
MOST_FLIPS = 3
"""Flipped answers shown of each model."""
MOST_NUMBERS = 20
MOST_LINES = 15
"""Lines of every other list."""
_MORE = "--html and --json have all"


def text_lines(diff: Diff) -> list[str]:
    """Return the comparison for the terminal: flipped answers first, then what else differs."""
    lines = [f"A  {_cut(diff.a.path, 76)}", f"B  {_cut(diff.b.path, 76)}"]
    for part in (_flips(diff), _settings(diff), _comparable(diff), _numbers(diff), _only(diff)):
        lines += ["", *part]
    return lines


def _flips(diff: Diff) -> Iterator[str]:
    count = sum(len(one.flips) for one in diff.flips)
    asked = sum(one.asked for one in diff.flips)
    lost = sum(one.lost for one in diff.flips)
    head = f"Flipped answers: {count} of {asked}"
    yield f"{head} ({lost} right only in A, {count - lost} only in B)" if count else head
    for one in diff.flips:
        if one.flips or one.reworded:
            yield from _of_model(diff, one)


def _of_model(diff: Diff, one: Flips) -> Iterator[str]:
    yield f"  {_cut(cell_title(one.cell), 76)}"
    gained = len(one.flips) - one.lost
    yield f"    of {one.asked}: -{one.lost} +{gained} flipped, {one.reworded} worded otherwise"
    for flip in one.flips[:MOST_FLIPS]:
        yield from _flip(flip, diff.questions.get(flip.question_id, ""))
    if len(one.flips) > MOST_FLIPS:
        yield f"      and {len(one.flips) - MOST_FLIPS} more; {_MORE}"


def _flip(flip: Flip, question: str) -> Iterator[str]:
    asked = f"{flip.question_id}: {question}" if question else flip.question_id
    yield f"      {_cut(asked, 74)}"
    yield f"        true {_cut(flip.truth, 66)}"
    yield f"        A: {_said(flip.a)}"
    yield f"        B: {_said(flip.b)}"


def _said(side: Side) -> str:
    return f"{'right' if side.right else 'wrong'}  {_cut(side.text, 60)}"


def _settings(diff: Diff) -> Iterator[str]:
    for title, found in (("Settings", diff.settings), ("Environment", diff.environment)):
        yield f"{title}: {len(found)} differ" if found else f"{title}: the same"
        yield from _limited([line for one in found for line in _change(one)])


def _change(one: Change) -> list[str]:
    line = f"  {one.where}: {one.a} -> {one.b}"
    if len(line) <= WIDTH:
        return [plain(line, WIDTH)]
    return [f"  {_cut(one.where, 76)}", f"    A: {_cut(one.a, 72)}", f"    B: {_cut(one.b, 72)}"]


def _comparable(diff: Diff) -> Iterator[str]:
    if not diff.not_comparable:
        yield "Comparable: the same data, people and questions"
        return
    yield "Not comparable (numbers below are over shared questions alone):"
    yield from _limited([line for text in diff.not_comparable for line in _wrapped(text, "  - ")])


def _numbers(diff: Diff) -> Iterator[str]:
    same = sum(one.same for one in diff.gaps)
    clear = sum(one.is_clear for one in diff.gaps)
    yield f"Numbers in both: {len(diff.gaps)}; {same} the same, {len(diff.gaps) - same} differ"
    if same == len(diff.gaps):
        return
    yield from _wrapped(
        f"{clear} intervals lie off 0. Each stands alone: with that many, one in twenty does by "
        "chance. Differences are B minus A in points, paired by question, 95 % intervals "
        "clustered by person.",
        "  ",
    )
    found = most_different(diff.gaps, MOST_NUMBERS)
    last = ""
    for one in found:
        title = cell_title(one.cell)
        if title != last:
            yield f"  {_cut(title, 76)}"
        last = title
        yield _number(one)
    if found:
        yield f"  main readings, both modalities; {_MORE}"


def _number(one: Gap) -> str:
    what = f"{plain(set_title(one.set), 18)}, {plain(reading_title(one.measure), 16)}"
    ends = f"[{_points(one.low)}, {_points(one.high)}]" if one.low is not None else "no interval"
    values = f"{_percent(one.a.value)} -> {_percent(one.b.value)}"
    return f"    {what:36.36s} {values:>14s} {_points(one.difference):>6s} {ends}"


def _only(diff: Diff) -> Iterator[str]:
    both = {gap.cell for gap in diff.gaps}
    for name, keys in (("A", diff.only_a), ("B", diff.only_b)):
        yield f"Rows only in {name}: {len(keys)}"
        yield from _limited(list(_named(keys, both)))


def _named(keys: Sequence[Key], both: Collection[Cell]) -> Iterator[str]:
    """Yield a line for each model that one run has alone, else for each set of it."""
    groups: dict[str, dict[str, None]] = {}
    counts: Counter[str] = Counter()
    for cell, of_set, _, measure in keys:
        title = cell_title(cell)
        if cell in both:
            title += f", {set_title(of_set)}"
        counts[title] += 1
        groups.setdefault(title, {})[measure] = None
    for title, measures in groups.items():
        yield f"  {_cut(f'{title}: {counts[title]} rows', 76)}"
        if len(measures) <= MOST_FLIPS:
            yield f"    {_cut(', '.join(measures), 74)}"


def _limited(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"  and {len(lines) - MOST_LINES} more lines; {_MORE}"


def _wrapped(text: str, indent: str) -> list[str]:
    later = " " * len(indent)
    return textwrap.wrap(plain(text, 600), WIDTH, initial_indent=indent, subsequent_indent=later)


def _cut(value: object, width: int) -> str:
    """Return harmless text of at most `width` characters."""
    text = plain(value, 1000)
    return text if len(text) <= width else text[: width - 3] + "..."


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"


def _points(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:+.1f}"
