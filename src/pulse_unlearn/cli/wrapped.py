"""Text in the width of a terminal of 80 columns, in which most logs and papers are read too."""

from __future__ import annotations

import textwrap

from pulse_unlearn.texts import printable_block

WIDTH = 80


def wrapped(text: str, *, first: str = "", indent: int | None = None) -> str:
    """Return text in lines of 80 columns: `first` begins it, what follows is indented as deep.

    What would move a terminal's cursor, in a name or a setting, is shown harmless. `indent` sets
    another depth. Paths and commands are never torn, so that they can be copied.
    """
    deep = len(first) if indent is None else indent
    return textwrap.fill(
        " ".join(printable_block(text).split()),
        WIDTH,
        initial_indent=printable_block(first),
        subsequent_indent=" " * deep,
        break_long_words=False,
        break_on_hyphens=False,
    )
