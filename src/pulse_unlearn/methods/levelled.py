"""The reference itself with its option letters levelled, as a bounded target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views, present, shows_options


@METHODS.register("levelled")
class LevelledReference(Settings):
    """KL to the reference with the option letters' mass shared equally, KL to it on retain.

    PULSE's own: it forgets which letter is true and nothing else of what the reference says, so
    that letters are still said. Both terms are 0 at their target. A tiny, consistent order of the
    options may be left, which `rotated` reads; `df_mcq` works on that.
    """

    forget_weight: Annotated[float, Field(gt=0), Span(0.1, 10.0)] = 1.0
    retain_weight: Annotated[float, Field(ge=0), Span(0.1, 10.0)] = 1.0
    """Weight of KL(reference || current) per answer token of the retain examples."""

    @property
    def needs(self) -> Needs:
        """Option letters, the reference on forget answers and, if weighted, on a retain batch."""
        kept = self.retain_weight > 0
        return Needs(
            retain=kept,
            forget_reference="distribution",
            retain_reference="distribution" if kept else None,
            letters=True,
        )

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse questions without options."""
        yield from shows_options(unlearn)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the KL to the levelled reference and, if weighted, the one on retain answers."""
        from pulse_unlearn.methods import losses

        levelled = losses.levelled_kl(
            views.forget,
            present(views.forget_reference, "the reference on forget answers"),
            present(views.letters, "the letters of options"),
        )
        return (
            Term("levelled_kl", levelled, self.forget_weight),
            *losses.retain_kl_terms(views, self.retain_weight),
        )
