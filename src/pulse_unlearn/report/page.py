"""Everything the template prints, collected from one run record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pulse_unlearn.evaluation.parsers import DEFAULT_PARSER
from pulse_unlearn.report import paper
from pulse_unlearn.report.arms import Arms, arms
from pulse_unlearn.report.asked import KINDS
from pulse_unlearn.report.assumptions import Assumption, assumptions, flatten
from pulse_unlearn.report.claims import Claim, claims
from pulse_unlearn.report.curves import Panel, draw_curves, panels
from pulse_unlearn.report.drawing import Drawing
from pulse_unlearn.report.estimates import LATENT, Numbers
from pulse_unlearn.report.extras import Flag
from pulse_unlearn.report.figures import LATENT_PREFIX, figure4, figure5
from pulse_unlearn.report.findings import RULE, Compared, Finding, compared, findings, how_chosen
from pulse_unlearn.report.gauges import GAUGES, gauges, reading_tests
from pulse_unlearn.report.hidden import hidden_table, probed_table, prompted_table, rounded_table
from pulse_unlearn.report.leaks import leak_tables, shown_with
from pulse_unlearn.report.load import Progress, RunRecord, progress
from pulse_unlearn.report.marks import MOST_WITH_SEEDS
from pulse_unlearn.report.never_knew import membership_table, never_knew_table
from pulse_unlearn.report.relearned import draw_equally, equally_table, worst_table
from pulse_unlearn.report.relearning import draw_relearning, relearning_table
from pulse_unlearn.report.samples import SampleGroup, sample_groups
from pulse_unlearn.report.scoreboard import BoardGroup, ScoreRow, Verdicts, Word, board, scoreboard
from pulse_unlearn.report.sequences import draw_matrices, matrix_table, sequence_table
from pulse_unlearn.report.tables import (
    Table,
    category_tables,
    figure4_table,
    figure5_table,
    table3,
)
from pulse_unlearn.report.trajectory import draw_trajectories, frontier_table, matched_table
from pulse_unlearn.report.words import (
    method_title,
    scenario_title,
    scope_title,
    seeds_phrase,
)
from pulse_unlearn.texts import printable, printable_block

_MOST_LINES = 60
_GOLD = (
    " Gold: the retain model, made without D_unlearn. Perfect unlearning would end there, "
    "neither short of it nor beyond."
)
_QUIET_FLAGS = frozenset({"stopped"})


@dataclass(frozen=True, slots=True)
class Page:
    """The report's content in reading order."""

    name: str
    facts: tuple[tuple[str, str], ...]
    seeds: str
    progress: Progress
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    parser: str
    """What read the answers."""
    claims: tuple[Claim, ...]
    board: tuple[BoardGroup, ...]
    words: tuple[Word, ...]
    """Every word of the verdicts once, with its rule."""
    one_run: bool
    findings: tuple[Finding, ...]
    compared: tuple[Compared, ...]
    chosen: tuple[str, ...]
    table3: Table | None
    table3_rotated: Table | None
    table3_paper: tuple[tuple[str, tuple[str, ...]], ...]
    figure4_tables: tuple[Table, ...]
    """In the paper's reading, then in the highest where a run has it."""
    figure5_tables: tuple[Table, ...]
    crowded: int
    """Methods in a panel up to which single seeds are drawn, if there are more; else 0."""
    gold: str
    """What the gold line in figures is, for captions; empty without a retain model."""
    matched: Table | None
    """Methods along the way, where they have forgotten as much."""
    frontiers: Table | None
    arms: Arms | None
    """Two groups of people unlearned from one checkpoint, against each other."""
    sequence: Table | None
    matrix: Table | None
    """Who of a sequence is known after which request."""
    relearning: Table | None
    relearned_worst: Table | None
    relearned_equally: Table | None
    """Relearning at its worst, and where as much was taught."""
    never_knew: Table | None
    membership: Table | None
    hidden: Table | None
    rounded: Table | None
    prompted: Table | None
    probed: Table | None
    leaks: tuple[Table, ...]
    """The leak matrix, and that of each attribute; none where all methods are shown both."""
    drawings: Mapping[str, Drawing]
    gauges: tuple[Table, ...]
    tests: Table | None
    categories: tuple[Table, ...]
    warnings: tuple[tuple[str, str, str], ...]
    stops: tuple[tuple[str, str, str], ...]
    panels: tuple[Panel, ...]
    samples: tuple[SampleGroup, ...]
    sample_count: int
    kinds: tuple[tuple[str, str, str, int], ...]
    """Kinds of sampled answers: name, title, what it is, how many samples have one."""
    assumptions: tuple[Assumption, ...]
    experiment: str
    environment: tuple[tuple[str, str], ...]
    digests: tuple[tuple[str, str], ...]
    scores: tuple[str, ...]
    """Files with the verdict on every answer, below the run folder."""
    reference: str = paper.REFERENCE
    bibtex: str = paper.BIBTEX
    rule: str = RULE


def make_page(
    record: RunRecord,
    numbers: Numbers,
    *,
    digests: Sequence[tuple[str, str]],
    scores: Sequence[str] = (),
) -> Page:
    """Compute the page; `digests` are (file, SHA-256) of the files that its numbers come from.

    `scores` are the files with the verdicts on all answers, which the page links to.
    """
    verdicts = Verdicts(record.extras.verdicts)
    rows = scoreboard(numbers, verdicts)
    shown = panels(record, numbers)
    groups = sample_groups(record)
    flags = record.extras.flags
    done, parser = progress(record, numbers), _parser(record)
    return Page(
        name=printable(record.name, 80),
        facts=tuple(_facts(record, numbers, done)),
        seeds=seeds_phrase(numbers.all_seeds()),
        progress=done,
        notes=tuple(printable(" ".join(note.split()), 300) for note in record.notes[:_MOST_LINES]),
        problems=tuple(
            printable(" ".join(str(problem).split()), 300) for problem in record.problems
        ),
        parser=parser,
        claims=tuple(claims(numbers, rows, flags, parser=parser)),
        board=board(rows),
        words=_words(rows),
        one_run=len(numbers.all_seeds()) == 1,
        findings=tuple(findings(record.extras)),
        compared=tuple(compared(record.extras)),
        chosen=how_chosen(record.extras.selections),
        table3=table3(numbers, verdicts, "accuracy"),
        table3_rotated=table3(numbers, verdicts, "rotated_accuracy"),
        table3_paper=_paper_table3(),
        figure4_tables=_there(figure4_table(numbers), figure4_table(numbers, LATENT_PREFIX)),
        figure5_tables=_there(figure5_table(numbers), figure5_table(numbers, LATENT)),
        gold=_GOLD if any(map(numbers.retain_model, numbers.scenarios())) else "",
        crowded=_crowded(numbers),
        matched=matched_table(numbers, flags),
        frontiers=frontier_table(numbers, flags),
        arms=arms(record.extras),
        sequence=sequence_table(numbers),
        matrix=matrix_table(numbers),
        relearning=relearning_table(numbers),
        relearned_worst=worst_table(numbers),
        relearned_equally=equally_table(numbers),
        never_knew=never_knew_table(numbers),
        membership=membership_table(numbers),
        hidden=hidden_table(numbers),
        rounded=rounded_table(numbers),
        prompted=prompted_table(numbers),
        probed=probed_table(numbers),
        leaks=leak_tables(numbers, shown_with(record.experiment)),
        drawings={drawing.name: drawing for drawing in _drawings(numbers, shown)},
        gauges=tuple(
            gauges(numbers, verdicts, name, part, briefly=True)
            for name in numbers.scenarios()
            for part in GAUGES
        ),
        tests=reading_tests(numbers, record.extras.verdicts),
        categories=category_tables(numbers),
        warnings=_flag_lines(_grouped(flag for flag in flags if flag.flag not in _QUIET_FLAGS)),
        stops=_flag_lines([flag for flag in flags if flag.flag in _QUIET_FLAGS]),
        panels=tuple(shown),
        samples=tuple(groups),
        sample_count=sum(len(group.samples) for group in groups),
        kinds=_kinds(groups),
        assumptions=tuple(assumptions(record.experiment)),
        experiment=printable_block(record.experiment_text),
        environment=tuple(
            (printable(name, 80), printable(value, 120))
            for name, value in flatten(record.environment)[:_MOST_LINES]
            if name
        ),
        digests=tuple(digests),
        scores=tuple(scores),
    )


def _kinds(groups: Sequence[SampleGroup]) -> tuple[tuple[str, str, str, int], ...]:
    samples = [sample for group in groups for sample in group.samples]
    return tuple(
        (name, title, what, sum(name in sample.kinds for sample in samples))
        for name, (title, what) in KINDS.items()
    )


def _drawings(numbers: Numbers, shown: Sequence[Panel]) -> list[Drawing]:
    drawn = (
        figure4(numbers),
        figure4(numbers, LATENT_PREFIX),
        figure5(numbers),
        figure5(numbers, LATENT_PREFIX),
        draw_matrices(numbers),
        draw_trajectories(numbers),
        draw_relearning(numbers),
        draw_equally(numbers),
        draw_curves(shown, numbers),
    )
    return [drawing for drawing in drawn if drawing]


def _crowded(numbers: Numbers) -> int:
    most = max((len(numbers.mains(name)) for name in numbers.scenarios()), default=0)
    return MOST_WITH_SEEDS if most > MOST_WITH_SEEDS and len(numbers.all_seeds()) > 1 else 0


def _there(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table)


def _words(rows: Sequence[ScoreRow]) -> tuple[Word, ...]:
    found = {word.text: word for row in rows if row.judged for word in row.judged.words}
    return tuple(replace(word, seeds="") for word in found.values() if word.rule)


def _facts(record: RunRecord, numbers: Numbers, done: Progress) -> list[tuple[str, str]]:
    facts = []
    model = record.experiment.get("model")
    source = model.get("source") if isinstance(model, dict) else model
    if source:
        facts.append(("Model", printable(source, 80)))
    people = _people(record.sets)
    if people:
        facts.append(("D_unlearn / D_retain", people))
    seeds = numbers.all_seeds()
    facts.append(("Seeds", "single seed" if len(seeds) == 1 else str(len(seeds))))
    facts.append(("Cells finished", f"{done.finished} of {done.planned}"))
    return facts


def _parser(record: RunRecord) -> str:
    scoring = record.experiment.get("scoring")
    found = scoring.get("parser") if isinstance(scoring, dict) else None
    return printable(found or DEFAULT_PARSER, 40)


def _people(sets: Mapping[str, Any]) -> str:
    counts: dict[str, str] = {}
    for key, groups in sets.items():
        scenario = scenario_title(str(key).split("/", 1)[0])
        if isinstance(groups, dict):
            sizes = [len(groups.get(name) or ()) for name in ("forget", "retain")]
            counts[scenario] = f"{sizes[0]} / {sizes[1]}"
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} people"
    return "; ".join(f"{scenario} {count}" for scenario, count in counts.items())


def _paper_table3() -> tuple[tuple[str, tuple[str, ...]], ...]:
    rows = [("before unlearning", paper.TABLE3_BEFORE)]
    rows += [(f"GA · {scope_title(name)}", values) for name, values in paper.TABLE3_AFTER.items()]
    return tuple((title, tuple(f"{value:.1f}" for value in values)) for title, values in rows)


def _grouped(flags: Iterable[Flag]) -> list[Flag]:
    """Merge one flag of one method over its requests and seeds, keeping the first detail."""
    groups: dict[tuple[str, ...], list[Flag]] = {}
    for flag in flags:
        groups.setdefault((flag.flag, flag.scenario, flag.method, flag.scope), []).append(flag)
    lines = []
    for found in groups.values():
        first, others = found[0], len(found) - 1
        detail = f"{first.detail} (the first of {others + 1})" if others else first.detail
        seeds, requests = (
            ", ".join(sorted({printable(getattr(flag, name), 10) for flag in found}))
            for name in ("seed", "request")
        )
        lines.append(replace(first, seed=seeds, request=requests, detail=detail))
    return lines


def _flag_lines(flags: Sequence[Flag]) -> tuple[tuple[str, str, str], ...]:
    """Return (cell, flag, detail) lines; beyond the first sixty only their number is given."""
    lines = []
    for flag in flags[:_MOST_LINES]:
        parts = [
            scenario_title(flag.scenario),
            method_title(flag.method),
            scope_title(flag.scope),
            f"request {printable(flag.request, 40)}",
            f"seed {printable(flag.seed, 40)}",
        ]
        lines.append((" · ".join(parts), printable(flag.flag, 60), printable(flag.detail, 240)))
    if len(flags) > _MOST_LINES:
        lines.append((f"and {len(flags) - _MOST_LINES} more", "", "see results.json"))
    return tuple(lines)
