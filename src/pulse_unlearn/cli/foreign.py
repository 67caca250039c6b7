"""`pulse score --answers`: answers that were made elsewhere, judged and told in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_unlearn.cli.wrapped import WIDTH, wrapped
from pulse_unlearn.texts import printable_block

if TYPE_CHECKING:
    from pulse_unlearn.pipeline.foreign import Judged, Share


def score_answers(answers: Path, general: Path, parsers: Sequence[str], out: Path | None) -> None:
    """Print how right the answers are, by every one of these parsers; write all of it to `out`."""
    from pulse_unlearn.data.mmbench import load_rows
    from pulse_unlearn.data.mmbench_table import read_answers
    from pulse_unlearn.evaluation.parsers import PARSERS
    from pulse_unlearn.pipeline.foreign import judge

    rows, found = load_rows(general), read_answers(answers)
    names = parsers or [name for name, _ in PARSERS]
    judged = [judge(rows, found, parser=name) for name in names]
    click.echo(
        wrapped(f"{answers}: {len(found)} answers to {judged[0].vanilla.questions} questions")
    )
    for line in _table(judged):  # categories are the file's own words
        click.echo(printable_block(line))
    if out:
        from pulse_unlearn.store import write_json

        by_parser = {one.parser: asdict(one) for one in judged}
        write_json(out, {"answers": str(answers), "general": str(general), "parsers": by_parser})
        click.echo(f"all of it: {out}")


def _table(judged: Sequence[Judged]) -> list[str]:
    """Return a line for every parser, then one for every category."""
    width = max(len("parser"), *(len(one.parser) for one in judged))
    lines = [
        wrapped("percent; unreadable and refused answers are wrong, no option is drawn at random"),
        f"{'parser':{width}}{'vanilla':>21}{'circular':>21}{'read':>6}{'refused':>9}{'unread':>8}",
    ]
    for one in judged:
        read = one.read
        lines.append(
            f"{one.parser:{width}}{_share(one.vanilla):>21}{_share(one.circular):>21}"
            f"{100 * read['answered']:>6.1f}{100 * read['refused']:>9.1f}"
            f"{100 * read['unparsable']:>8.1f}"
        )
    for title, of in (
        ("l2-category", [one.by_l2_category for one in judged]),
        ("category", [one.by_category for one in judged]),
    ):
        if of[0]:
            heads = [one.parser for one in judged]
            columns = dict(zip(heads, of, strict=True))
            wide = max(len(title), *map(len, of[0]))
            # As many parsers beside one another as a line has room for.
            each = max(1, (WIDTH - wide - 11) // (width + 2))
            for start in range(0, len(heads), each):
                beside = heads[start : start + each]
                lines += ["", f"vanilla by {title}"]
                lines += [f"{'':{wide}}  questions" + "".join(f"{h:>{width + 2}}" for h in beside)]
                for name, first in of[0].items():
                    shares = [100 * columns[head][name].value for head in beside]
                    values = "".join(f"{value:>{width + 2}.1f}" for value in shares)
                    lines.append(f"{name:{wide}}{first.questions:>11}{values}")
    return lines


def _share(share: Share | None) -> str:
    if share is None:
        return "one order only"
    low, high = share.interval.low or 0.0, share.interval.high or 0.0
    return f"{100 * share.value:.2f} [{100 * low:.1f}, {100 * high:.1f}]"
