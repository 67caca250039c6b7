"""The board as rows of text: one table for Markdown, the page and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pulse_unlearn.leaderboard.board import Board, by_scenario
from pulse_unlearn.leaderboard.entries import KEPT, VERDICTS, Entry, SeedEntry
from pulse_unlearn.leaderboard.few_seeds import MODERATED_FROM
from pulse_unlearn.leaderboard.ranking import Ranked, both_of, ranked
from pulse_unlearn.report.words import method_title, scenario_title, scope_title
from pulse_unlearn.texts import printable

_TOLD = 0.005
"""Least that an attack has to bring back to be named: what is not 0 in whole percent."""
HEADS = (
    *("rank", "method", "score", "forgotten", "after attacks", "kept least", "of"),
    *("brought back by", "x GA", "verdict"),
)
_SETS = {
    "retain": "D_retain",
    "unseen": "unseen people",
    "unseen_fictional": "unseen fictional people",
    "general": "general",
}
EXPLAINED = (
    "Percent, means over the seeds. `forgotten`: how much of the way from what was known of "
    "D_unlearn down to the retain model (or to chance, without one) is gone, by the highest "
    "reading. `after attacks`: the same after the attack that finds most beyond the same "
    "attack on the retain model; adapters switched off are none, since they can be merged. "
    "`brought back by`: what it finds more than is found without it. `kept least`: usable "
    "accuracy over that before, of the set that lost most. `score`: harmonic mean of `after "
    "attacks` and `kept least`; by it they are ranked. In brackets are the ranks that no sure"
    " difference between seeds excludes (paired t tests, Holm; from "
    f"{MODERATED_FROM} methods on their variances are moderated by each other, Smyth 2004). A star "
    "marks the front: nobody forgets more and keeps more. `x GA`: time of unlearning over that of "
    "GA in the same run."
)


@dataclass(frozen=True, slots=True)
class Section:
    """A scenario's table."""

    title: str
    seeds: tuple[int, ...]
    retain_model: bool
    attacks: tuple[str, ...]
    ranks: tuple[Ranked, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def told(self) -> str:
        """What the table rests on, in a sentence."""
        count = len(self.seeds)
        seeds = "one seed, so no ranks are told apart" if count < 2 else f"{count} seeds"
        model = "a retain model" if self.retain_model else "chance, as it has no retain model"
        attacks = ", ".join(self.attacks) if self.attacks else "none"
        return f"{len(self.rows)} methods, {seeds}; held against {model}; attacks: {attacks}."


def sections(board: Board) -> list[Section]:
    """Return a table for each scenario."""
    found = []
    for scenario, entries in by_scenario(board).items():
        ranks = tuple(ranked(entries))
        several = {one.method for one in entries if _scopes(entries, one.method) > 1}
        found.append(
            Section(
                scenario_title(scenario),
                tuple(sorted({seed.seed for one in entries for seed in one.seeds})),
                all(one.has_retain_model for one in entries),
                tuple(sorted({name for e in entries for s in e.seeds for name in s.attacks})),
                ranks,
                tuple(_row(one, several) for one in ranks),
            )
        )
    return found


def markdown(board: Board) -> str:
    """Return the board as a Markdown page."""
    lines = ["# Leaderboard", "", EXPLAINED, ""]
    for section in sections(board):
        lines += [f"## {section.title}", "", section.told, ""]
        lines.append(f"| {' | '.join(HEADS)} |")
        lines.append(f"|{'---|' * len(HEADS)}")
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in section.rows]
        lines.append("")
    lines += ["## Verdicts", "", "A method has the worst word of its seeds.", ""]
    lines += [f"* *{word}*: {rule}" for word, rule in VERDICTS.items()]
    runs = sorted({one.run for one in board.entries})
    lines += ["", f"From verified runs: {', '.join(map(_cell, runs))}.", ""]
    return "\n".join(lines)


def name_of(entry: Entry, *, scoped: bool) -> str:
    """Return what tables call an entry."""
    title = method_title(entry.method)
    return f"{title} ({scope_title(entry.scope)})" if scoped else title


def _row(one: Ranked, several: set[str]) -> tuple[str, ...]:
    entry = one.entry
    for_good, kept = both_of(entry)
    attack = _strongest(entry.seeds)
    return (
        one.told,
        name_of(entry, scoped=entry.method in several) + (" *" if one.on_front else ""),
        _percent(entry.score),
        _percent(fmean(seed.forgotten for seed in entry.seeds)),
        _percent(for_good),
        _percent(kept),
        _least_kept(entry.seeds),
        f"{attack[0]} ({100 * attack[1]:+.0f})" if attack else "",
        f"{entry.cost:.1f}" if entry.cost else "",
        entry.verdict,
    )


def _scopes(entries: Sequence[Entry], method: str) -> int:
    return len({one.scope for one in entries if one.method == method})


def _least_kept(seeds: Sequence[SeedEntry]) -> str:
    """Return the set that lost most on the mean of the seeds."""
    sets = [name for name in KEPT if all(name in one.kept for one in seeds)]
    if not sets:
        return ""
    return _SETS[min(sets, key=lambda name: fmean(one.kept[name] for one in seeds))]


def _strongest(seeds: Sequence[SeedEntry]) -> tuple[str, float] | None:
    """Return the attack that brings back most on the mean, if it brings back anything."""
    names = sorted({name for one in seeds for name in one.attacks})
    means = {n: fmean(one.brought_back.get(n, 0.0) for one in seeds) for n in names}
    best = max(means, key=lambda name: means[name], default="")
    return (best, means[best]) if best and means[best] >= _TOLD else None


def _percent(value: float) -> str:
    return f"{100 * value:.0f}"


def _cell(text: str) -> str:
    """Return text that breaks no table."""
    return printable(text, 120).replace("|", "\\|")
