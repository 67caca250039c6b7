"""Tables as LaTeX, Markdown and CSV, each with everything escaped that it gives a meaning to."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pulse_unlearn.report.estimates import Estimate
from pulse_unlearn.report.tables import Shown, Table
from pulse_unlearn.report.words import percent, spread
from pulse_unlearn.tables.build import NamedTable
from pulse_unlearn.texts import escape_csv, escape_tex, printable

Ends = Literal["low-high", "half-width"]
"""`[low, high]`, or half of the distance between them behind a plus-minus sign."""


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write a table: the ending of its file, and what writes it."""

    suffix: str
    write: Callable[[NamedTable, Ends], str]


# --- LaTeX

_HEAD = 12
"""Characters of a line of a column's head."""
_WIDE = 8
"""A table of more columns is shrunk to the width of the text."""


def latex(named: NamedTable, ends: Ends) -> str:
    """Write a `table` with booktabs, a wide one shrunk to the text; notes stand below it."""
    table = named.table
    columns = "l" * len(table.heads) + "".join("r" if one else "l" for one in _numeric(table))
    heads = " & ".join([*map(escape_tex, table.heads), *map(_tex_head, table.columns)])
    rows = [
        " & ".join([*map(escape_tex, row.heads), *(_tex_cell(cell, ends) for cell in row.cells)])
        for row in table.rows
    ]
    body = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        heads + r" \\",
        r"\midrule",
        " \\\\\n\\addlinespace\n".join(rows) + r" \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    is_wide = len(columns) > _WIDE
    lines = [
        r"% needs \usepackage{booktabs}" + (r" and \usepackage{graphicx}" if is_wide else ""),
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape_tex(f'{named.caption} {_told(ends)}')}}}",
        rf"\label{{tab:pulse-{re.sub(r'[^A-Za-z0-9-]', '-', named.name)}}}",
        r"\small",
        *([r"\resizebox{\textwidth}{!}{%", *body, "}"] if is_wide else body),
        *(rf"\par\footnotesize $^{{{mark}}}$ {escape_tex(text)}" for mark, text in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _tex_head(title: str) -> str:
    return _stacked([escape_tex(line) for line in textwrap.wrap(title, _HEAD)], "b")


def _tex_cell(cell: Shown, ends: Ends) -> str:
    mark = f"$^{{{cell.mark}}}$" if cell.mark else ""
    lines = [escape_tex(_value(cell, ends)) + mark]
    below = filter(None, (_bracketed(cell, ends), *_remarks(cell)))
    lines += [rf"{{\scriptsize {escape_tex(text)}}}" for text in below]
    return _stacked(lines, "t")


def _stacked(lines: Sequence[str], place: str) -> str:
    if len(lines) < 2:
        return "".join(lines)
    return rf"\begin{{tabular}}[{place}]{{@{{}}r@{{}}}}" + r"\\".join(lines) + r"\end{tabular}"


# --- Markdown

_MARKDOWN = re.compile(r"([\\`*_|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "[": "&#91;", "]": "&#93;"}


def escape_markdown(text: str) -> str:
    """Return text as Markdown prints it inside a table."""
    shown = "".join(_ENTITIES.get(one, one) for one in printable(text, 400))
    return _MARKDOWN.sub(r"\\\1", shown)


def markdown(named: NamedTable, ends: Ends) -> str:
    """Write a table of GitHub's Markdown under its caption; notes stand below it."""
    table = named.table
    heads = [escape_markdown(head) for head in (*table.heads, *table.columns)]
    rule = [":--"] * len(table.heads) + ["--:" if one else ":--" for one in _numeric(table)]
    rows = [
        [*map(escape_markdown, row.heads), *(_markdown_cell(cell, ends) for cell in row.cells)]
        for row in table.rows
    ]
    lines = [f"**{escape_markdown(named.caption)}** {escape_markdown(_told(ends))}", ""]
    lines += [f"| {' | '.join(row)} |" for row in (heads, rule, *rows)]
    notes = [f"<sup>{mark}</sup> {escape_markdown(text)}" for mark, text in table.notes]
    return "\n".join([*lines, *(["", "<br>\n".join(notes)] if notes else [])]) + "\n"


def _markdown_cell(cell: Shown, ends: Ends) -> str:
    mark = f"<sup>{cell.mark}</sup>" if cell.mark else ""
    below = [_bracketed(cell, ends), *map(escape_markdown, _remarks(cell))]
    lines = [escape_markdown(_value(cell, ends)) + mark, *filter(None, below)]
    return "<br>".join(lines)


# --- CSV

_DECIMALS = 4
"""Of a percentage: as many digits as `results.csv` keeps of the fraction."""


def comma_separated(named: NamedTable, ends: Ends) -> str:
    """Write value, ends and remarks in columns of their own, in percent and unrounded.

    `ends` changes nothing: both ends are there.
    """
    table = named.table
    numeric = _numeric(table)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = list(map(escape_csv, table.heads))
    for title, is_number in zip(map(escape_csv, table.columns), numeric, strict=True):
        heads += (
            [title, f"{title}: low", f"{title}: high", f"{title}: remarks"]
            if is_number
            else [title]
        )
    writer.writerow(heads)
    notes = dict(table.notes)
    for row in table.rows:
        cells = list(map(escape_csv, row.heads))
        for cell, is_number in zip(row.cells, numeric, strict=True):
            cells += _csv_number(cell, notes) if is_number else [escape_csv(cell.value)]
        writer.writerow(cells)
    return text.getvalue()


def _csv_number(cell: Shown, notes: dict[str, str]) -> list[str]:
    found = cell.estimate or Estimate(None, None, None, None, (), 0, "")
    remarks = "; ".join(text for text in (notes.get(cell.mark, ""), *cell.beside) if text)
    numbers = (found.value, found.low, found.high)
    return [*(_percent(number, cell.measure) for number in numbers), escape_csv(remarks)]


def _percent(value: float | None, measure: str) -> str:
    if value is None:
        return ""
    return f"{value if '_pct' in measure else 100 * value:.{_DECIMALS}f}"


# --- what the formats share


def _numeric(table: Table) -> list[bool]:
    """Tell which columns hold numbers."""
    return [any(row.cells[p].measure for row in table.rows) for p in range(len(table.columns))]


def _remarks(cell: Shown) -> list[str]:
    """Return what stands beside a number, without the spread of the seeds: the interval has it."""
    return [text for text in cell.beside if text != spread(cell.estimate, cell.measure)]


def _value(cell: Shown, ends: Ends) -> str:
    half = _half(cell) if ends == "half-width" else ""
    return f"{cell.value} ± {half}" if half else cell.value


def _half(cell: Shown) -> str:
    one = cell.estimate
    if one is None or one.low is None or one.high is None:
        return ""
    return percent((one.high - one.low) / 2, cell.measure)


def _bracketed(cell: Shown, ends: Ends) -> str:
    """Return the interval that stands under a number; empty if there is none."""
    one = cell.estimate
    if ends != "low-high" or one is None or one.low is None or one.high is None:
        return ""
    return f"[{percent(one.low, cell.measure)}, {percent(one.high, cell.measure)}]"


def _told(ends: Ends) -> str:
    if ends == "half-width":
        return "± is half of the width of the 95 % interval, which need not be symmetric."
    return "Brackets: ends of the 95 % interval."


FORMATS: dict[str, Format] = {
    "latex": Format(".tex", latex),
    "markdown": Format(".md", markdown),
    "csv": Format(".csv", comma_separated),
}
