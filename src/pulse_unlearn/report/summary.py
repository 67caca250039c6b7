"""The run's numbers as a short plain-text table, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pulse_unlearn.report.answer import scoreboard
from pulse_unlearn.report.estimates import Estimate, Numbers
from pulse_unlearn.report.load import load_run
from pulse_unlearn.report.printable import plain
from pulse_unlearn.report.progress import progress
from pulse_unlearn.report.words import interval, percent, seeds_phrase

_HEADS = (
    "scenario", "method", "updated", "forgotten", "image", "text",
    "D_retain kept", "general kept", "unreadable", "tests say",
)  # fmt: skip
_TEXT_COLUMNS = frozenset({0, 1, 2, 9})
_MOST_MISSING = 8


def summary_lines(run: Path) -> list[str]:
    """Return the table in ASCII, percent with intervals, after each method's last request.

    Raises StoreError as `build_report` does. Control characters of labels are shown, not sent.
    """
    record = load_run(run)
    numbers = Numbers(record.results, record.labels)
    table = [list(_HEADS)]
    for row in scoreboard(numbers, record.flags):
        place = row.place
        request = f" ({place.request} requests)" if place.request > 1 else ""
        table.append(
            [
                plain(place.scenario) + request,
                plain(place.method, 24),
                plain(place.scope, 24),
                _cell(row.forgotten, "forgotten_pct"),
                _short(row.with_image, "forgotten_pct"),
                _short(row.text_only, "forgotten_pct"),
                _cell(row.retain_kept, "kept_pct"),
                _cell(row.general_kept, "kept_pct"),
                _short(row.unparsable, "unparsable"),
                row.status.word,
            ]
        )
    done = progress(record, numbers)
    seeds = plain(seeds_phrase(numbers.all_seeds()), 80)
    head = f"{plain(record.name)}: {done.finished} of {done.planned} cells finished, {seeds}"
    lines = [
        head,
        "percent, 95 % intervals; image, text: D_unlearn forgotten with the image, by name",
        "",
        *_aligned(table),
    ]
    if done.missing:
        lines += ["", "not finished:"]
        lines += [f"  {plain(line, 100)}" for line in done.missing[:_MOST_MISSING]]
        if len(done.missing) > _MOST_MISSING:
            lines.append(f"  and {len(done.missing) - _MOST_MISSING} more")
    return lines


def _cell(estimate: Estimate | None, measure: str) -> str:
    limits = interval(estimate, measure, digits=0).replace(" – ", ",")
    return _short(estimate, measure) + (f" [{_minus(limits)}]" if limits else "")


def _short(estimate: Estimate | None, measure: str) -> str:
    if estimate is None:
        return "-"
    if estimate.value is None:
        return "n/a"
    return _minus(percent(estimate.value, measure, digits=0))


def _minus(text: str) -> str:
    return text.replace("−", "-")


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADS))]
    lines = [
        "  ".join(
            text.ljust(width) if column in _TEXT_COLUMNS else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
