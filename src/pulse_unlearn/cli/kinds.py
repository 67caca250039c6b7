"""`--allow-overlap KINDS`: which overlaps are let pass, separated by commas."""

from __future__ import annotations

import click


class Kinds(click.ParamType[tuple[str, ...]]):
    """Kinds of overlaps, such as `same_person,named`; a tuple of them."""

    name = "KINDS"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split the text at commas; fails with the kinds there are."""
        from typing import get_args

        from pulse_unlearn.config import Overlap

        if isinstance(value, tuple):
            return value
        known = get_args(Overlap)
        kinds = tuple(kind.strip() for kind in str(value).split(","))
        strange = [kind for kind in kinds if kind not in known]
        if strange:
            self.fail(f"{', '.join(strange)}: not among {', '.join(known)}", param, ctx)
        return kinds


KINDS = Kinds()
