"""The run's numbers as a short plain-text table, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pulse_unlearn.report.estimates import Estimate, Numbers
from pulse_unlearn.report.extras import Flag
from pulse_unlearn.report.load import RunRecord, progress
from pulse_unlearn.report.scoreboard import Known, ScoreRow, Verdicts, scoreboard
from pulse_unlearn.report.words import (
    interval,
    model_title,
    percent,
    plain,
    reading_title,
    seeds_phrase,
)

_HEADS = (
    "scenario", "method", "updated", "usable", "remembered", "by",
    "retain", "unseen", "general", "letter", "unread", "verdict",
)  # fmt: skip
_TEXT_COLUMNS = frozenset({0, 1, 2, 5, 11})
_TOLD_FLAGS = (
    "one_letter",
    "collapsed",
    "target_reached_by_one_letter",
    "target_reached_by_unreadable_answers",
)
_MOST_MISSING = 8
_WIDTH = 140


def summary_lines(record: RunRecord) -> list[str]:
    """Return the table in ASCII, percent, before and after each method's last request.

    Control characters of labels are shown, not sent.
    """
    numbers = Numbers(record.results, record.labels, record.extras.over_seeds)
    rows = scoreboard(numbers, Verdicts(record.extras.verdicts))
    done = progress(record, numbers)
    seeds = plain(seeds_phrase(numbers.all_seeds()), 80)
    lines = [
        f"{plain(record.name)}: {done.finished} of {done.planned} cells finished, {seeds}",
        "right answers in percent. usable: as the paper reads; remembered: by the reading that "
        "finds most, named beside it;",
        "retain, unseen, general: usable | latent (the highest reading); letter, unread: of the "
        "answers about D_unlearn; (5): after five requests",
        "",
        *_aligned([list(_HEADS), *(_cells(row) for row in rows)]),
    ]
    flagged = _flagged(record.extras.flags, seeds=len(numbers.all_seeds()))
    lines += ["", *flagged] if flagged else []
    if done.missing:
        lines += ["", "not finished:"]
        lines += [f"  {plain(line, 100)}" for line in done.missing[:_MOST_MISSING]]
        if len(done.missing) > _MOST_MISSING:
            lines.append(f"  and {len(done.missing) - _MOST_MISSING} more")
    return lines


def _cells(row: ScoreRow) -> list[str]:
    place = row.place
    is_method = place.request > 0
    request = f" ({place.request})" if place.request > 1 else ""
    letters = "/".join(plain(letter, 3) for letter in row.letters[:3])
    return [
        plain(place.scenario, 30) + request,
        plain(place.method, 20) if is_method else model_title(place),
        plain(place.scope, 20) if is_method else "",
        _with_limits(row.forget.usable),
        _with_limits(row.forget.latent),
        _by(row.forget),
        *(_both(known) for known in (row.retain, row.unseen, row.general)),
        f"{letters} {_short(row.letter_share)}".strip(),
        _short(row.unreadable),
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
            line = f"{name}: {'; '.join(parts)}"
            lines.append(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 4]} ...")
    return lines


def _where(method: str, flags: Sequence[Flag], seeds: int) -> str:
    """Write ``ga`` or, of several requests and seeds, ``ga (request 1 4, 2 of 3 seeds)``."""
    requests = sorted({plain(flag.request, 5) for flag in flags})
    told = [f"request {' '.join(requests)}"] if requests != ["1"] else []
    if seeds > 1:
        told.append(f"{len({flag.seed for flag in flags})} of {seeds} seeds")
    return f"{method} ({', '.join(told)})" if told else method


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADS))]
    lines = [
        "  ".join(
            text.ljust(width) if column in _TEXT_COLUMNS else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    return [lines[0], "-" * min(len(lines[0]), _WIDTH), *lines[1:]]
