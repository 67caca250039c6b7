"""The quantisation attack: the model after unlearning, its weights rounded to few bits.

Unlearning moves weights little, and rounding may move them back (Zhang et al., arXiv 2410.16454).
The retain model, rounded alike, says what rounding does to a model that never knew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings
from pulse_unlearn.scenarios.evaluations import EVALUATIONS, last_operations
from pulse_unlearn.scenarios.plan import Evaluation, Operation
from pulse_unlearn.scenarios.planner import Planner
from pulse_unlearn.scenarios.relearning import attacked_model
from pulse_unlearn.scenarios.retain_model import RETAIN_MODEL, Model, retain_model_of

Bits = Annotated[int, Field(ge=2, le=8)]


@EVALUATIONS.register("quantised")
class Quantised(Settings):
    """Every method's last model and the retain model about D_unlearn, with their weights rounded.

    Updates are added into the weights first, so nothing stays apart from them. Conditions are
    `int8`, `int4`, ...; the controls `retain_model+int8`, ... Of a served system the model inside
    is asked: whoever rounds it has left out router and guard.
    """

    bits: Annotated[tuple[Bits, ...], Field(min_length=1)] = (8, 4)
    group: Annotated[int, Field(ge=8)] | None = 32
    """Weights of an output row that share a scale; null for the whole row."""

    def plan(self, planner: Planner) -> Iterator[Evaluation]:
        """Yield a row for each last model and number of bits, and for each retain model."""
        for operation in last_operations(planner):
            model = retain_model_of(planner, operation)
            for bits in dict.fromkeys(self.bits):
                control = self._asked(planner, operation, model, bits) if model else ""
                asked = self._asked(planner, operation, attacked_model(operation), bits)
                cell = replace(operation.cell, condition=f"int{bits}")
                row = Evaluation(
                    cell, operation, asked, operation.before, only=asked, never_knew=control
                )
                yield row
                if control:
                    of_control = replace(cell, condition=f"{RETAIN_MODEL}+int{bits}")
                    yield replace(row, cell=of_control, scores=control, never_knew="")

    def _asked(self, planner: Planner, operation: Operation, model: Model, bits: int) -> str:
        """Ask a rounded model about D_unlearn."""
        stem = planner.stages[model.scored].name.removesuffix("/score")
        if model.scored == operation.before:  # a served system's: the target model is shared
            stem = planner.stages[operation.after].name.removesuffix("/score")
        return planner.score(
            f"{stem}/int{bits}/score",
            model.chain,
            (operation.forget,),
            general=False,
            model=model.model,
            bits=bits,
            group=self.group,
        )
