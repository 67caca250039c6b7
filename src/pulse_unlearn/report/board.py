"""The scoreboard as the page prints it: numbers with small bars, and chance marked on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pulse_unlearn.report.answer import Known, ScoreRow
from pulse_unlearn.report.estimates import Estimate
from pulse_unlearn.report.verdicts import Judged
from pulse_unlearn.report.words import (
    MISSING,
    interval,
    listed,
    model_heads,
    percent,
    reading_title,
    scenario_title,
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One number of the scoreboard with its bar; positions are percent of the bar's length."""

    text: str
    beside: tuple[str, ...]
    value: float | None
    low: float | None
    high: float | None
    chance: float | None


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One row of the scoreboard."""

    method: str
    updated: str
    bars: tuple[Bar, ...]
    judged: Judged | None


@dataclass(frozen=True, slots=True)
class BoardGroup:
    """The rows of one scenario."""

    title: str
    rows: tuple[BoardRow, ...]


def board(rows: Sequence[ScoreRow]) -> tuple[BoardGroup, ...]:
    """Return the scoreboard by scenario."""
    groups = []
    for scenario in dict.fromkeys(row.place.scenario for row in rows):
        inside = [row for row in rows if row.place.scenario == scenario]
        requests = max(row.place.request for row in inside)
        after = f", after {requests} requests" if requests > 1 else ""
        title = scenario_title(scenario) + after
        groups.append(BoardGroup(title, tuple(_row(row) for row in inside)))
    return tuple(groups)


def _row(row: ScoreRow) -> BoardRow:
    method, updated = model_heads(row.place)
    letter = (f"says {listed(row.letters)}",) if row.letters else ()
    return BoardRow(
        method=method,
        updated=updated,
        bars=(
            *(bar for known in _sets(row) for bar in _known(known)),
            _bar(row.letter_share, beside=letter),
            _bar(row.unreadable),
        ),
        judged=row.judged,
    )


def _sets(row: ScoreRow) -> tuple[Known, ...]:
    return (row.forget, row.retain, row.unseen, row.general)


def _known(known: Known) -> tuple[Bar, Bar]:
    by = (f"by {listed([reading_title(name) for name in known.by])}",) if known.by else ()
    return _bar(known.usable, chance=known.chance), _bar(
        known.latent, chance=known.chance, beside=by
    )


def _bar(
    estimate: Estimate | None, *, chance: float | None = None, beside: tuple[str, ...] = ()
) -> Bar:
    if estimate is None or estimate.value is None:
        return Bar("n/a" if estimate else MISSING, (), None, None, None, None)

    def place(value: float | None) -> float | None:
        return None if value is None else round(min(max(100 * value, 0.0), 100.0), 2)

    apart = "" if estimate.spread is None else f"sd {percent(estimate.spread)}"
    told = (interval(estimate, digits=0), apart, *beside)
    return Bar(
        percent(estimate.value, digits=0),
        tuple(text for text in told if text),
        place(estimate.value),
        place(estimate.low),
        place(estimate.high),
        place(chance),
    )
