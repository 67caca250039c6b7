"""The run's numbers as a short plain-text table, for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from pulse_unlearn.report.estimates import Estimate, Numbers
from pulse_unlearn.report.extras import Flag
from pulse_unlearn.report.load import RunRecord, progress
from pulse_unlearn.report.scoreboard import Known, ScoreRow, Verdicts, scoreboard
from pulse_unlearn.report.words import (
    interval,
    model_title,
    percent,
    reading_title,
    seeds_phrase,
)
from pulse_unlearn.texts import plain

_FORGOTTEN = ("D_unlearn", "usable", "remembered", "by", "letter", "unread")
_COST = ("what it cost", "retain", "unseen", "general", "verdict")
_TEXT_HEADS = frozenset({"D_unlearn", "by", "what it cost", "verdict"})
_TOLD_FLAGS = (
    "one_letter",
    "collapsed",
    "target_reached_by_one_letter",
    "target_reached_by_unreadable_answers",
)
_MOST_MISSING = 8
_WIDTH = 80


def summary_lines(record: RunRecord, numbers: Numbers) -> list[str]:
    """Return the table in ASCII, percent, before and after each method's last request.

    Control characters of labels are shown, not sent.
    """
    rows = scoreboard(numbers, Verdicts(record.extras.verdicts))
    done = progress(record, numbers)
    seeds = plain(seeds_phrase(numbers.all_seeds()), 80)
    lines = [
        *_wrapped(
            f"{plain(record.name)}: {done.finished} of {done.planned} cells finished, {seeds}"
        ),
        *_wrapped(
            "right answers in percent. usable: as the paper reads; remembered: by the reading that "
            "finds most, named beside it; retain, unseen, general: usable | latent (the highest "
            "reading); letter, unread: of the answers about D_unlearn; (5): after five requests"
        ),
        "",
        *_table(_FORGOTTEN, [(_group(row), _forgotten(row)) for row in rows]),
        "",
        *_table(_COST, [(_group(row), _cost(row)) for row in rows]),
    ]
    flagged = _flagged(record.extras.flags, seeds=len(numbers.all_seeds()))
    lines += ["", *flagged] if flagged else []
    if done.missing:
        lines += ["", "not finished:"]
        for line in done.missing[:_MOST_MISSING]:
            lines += _wrapped(plain(line, 100), indent=2)
        if len(done.missing) > _MOST_MISSING:
            lines.append(f"  and {len(done.missing) - _MOST_MISSING} more")
    return lines


def _group(row: ScoreRow) -> str:
    """Return what a row stands below: its scenario, and after how many requests."""
    request = row.place.request
    return plain(row.place.scenario, 30) + (f" ({request})" if request > 1 else "")


def _method(row: ScoreRow) -> str:
    place = row.place
    return plain(place.method, 20) if place.request > 0 else model_title(place)


def _forgotten(row: ScoreRow) -> list[str]:
    letters = "/".join(plain(letter, 3) for letter in row.letters[:3])
    return [
        _method(row),
        _with_limits(row.forget.usable),
        _with_limits(row.forget.latent),
        _by(row.forget),
        f"{letters} {_short(row.letter_share)}".strip(),
        _short(row.unreadable),
    ]


def _cost(row: ScoreRow) -> list[str]:
    return [
        _method(row),
        *(_both(known) for known in (row.retain, row.unseen, row.general)),
        plain(row.judged.text, 80) if row.judged else "",
    ]


def _by(known: Known) -> str:
    if len(known.by) > 1:
        return "several"
    return plain(reading_title(known.by[0]), 20) if known.by else "-"


def _with_limits(estimate: Estimate | None) -> str:
    limits = interval(estimate, digits=0).replace(" – ", ",")
    return _short(estimate) + (f" [{_minus(limits)}]" if limits else "")


def _both(known: Known) -> str:
    return f"{_short(known.usable)} | {_short(known.latent)}"


def _short(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.value is None:
        return "n/a"
    return _minus(percent(estimate.value, digits=0))


def _minus(text: str) -> str:
    return text.replace("−", "-")


def _flagged(flags: Sequence[Flag], *, seeds: int) -> list[str]:
    """Return one line for each flag a reader must know: where it was raised."""
    lines = []
    for name in _TOLD_FLAGS:
        cells: dict[str, dict[str, list[Flag]]] = {}
        for flag in flags:
            if flag.flag == name:
                by_method = cells.setdefault(plain(flag.scenario, 30), {})
                by_method.setdefault(plain(flag.method, 20), []).append(flag)
        if cells:
            parts = []
            for scenario, by_method in cells.items():
                where = [_where(method, found, seeds) for method, found in by_method.items()]
                parts.append(f"{scenario} {', '.join(where)}")
            lines += _wrapped(f"{name}: {'; '.join(parts)}", indent=2)
    return lines


def _where(method: str, flags: Sequence[Flag], seeds: int) -> str:
    """Write ``ga`` or, of several requests and seeds, ``ga (request 1 4, 2 of 3 seeds)``."""
    requests = sorted({plain(flag.request, 5) for flag in flags})
    told = [f"request {' '.join(requests)}"] if requests != ["1"] else []
    if seeds > 1:
        told.append(f"{len({flag.seed for flag in flags})} of {seeds} seeds")
    return f"{method} ({', '.join(told)})" if told else method


def _table(heads: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Return aligned lines, a line of its own for each group; long last cells are wrapped."""
    table = [
        [head, *cells] for head, *cells in ([*heads], *([f"  {c[0]}", *c[1:]] for _, c in rows))
    ]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    lines, group = [], ""
    for (name, _), row in zip([("", []), *rows], table, strict=True):
        if name not in ("", group):
            lines.append(name)
        group = name or group
        cells = [
            text.ljust(width) if head in _TEXT_HEADS else text.rjust(width)
            for head, text, width in zip(heads, row, widths, strict=True)
        ]
        before = "  ".join(cells[:-1]) + "  "
        lines += _wrapped(cells[-1], first=before)
    return [lines[0], "-" * _WIDTH, *lines[1:]]


def _wrapped(text: str, *, first: str = "", indent: int = 0) -> list[str]:
    """Return text in lines of 80 columns behind `first`, or with all but the first indented."""
    if not text.strip():
        return [first.rstrip()]
    return textwrap.wrap(
        text.rstrip() if first else text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * (len(first) or indent),
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
