"""What the weights still know: every operation asked again with its adapters off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pulse_unlearn.config import Settings
from pulse_unlearn.scenarios.evaluations import EVALUATIONS
from pulse_unlearn.scenarios.plan import Evaluation
from pulse_unlearn.scenarios.planner import Planner

ADAPTER_OFF = "adapter_off"


@EVALUATIONS.register(ADAPTER_OFF)
class AdapterOff(Settings):
    """Asks after each operation without what its requests added: adapters, router, guard.

    That is the target model, whose answers are there already: it costs nothing. Anyone who holds
    the weights can do this, so what it shows is hidden and not gone. A full update leaves nothing
    to switch off; its rows are left out, and a note says so.
    """

    def plan(self, planner: Planner) -> Iterator[Evaluation]:
        """Yield the target model's answers to what was asked after each operation."""
        for operation in planner.operations:
            label = operation.cell.method
            entry = planner.experiment.methods.get(label)
            if entry is None or operation.model:
                planner.notes.append(
                    f"{ADAPTER_OFF}: left out for {label}, which somebody else made"
                )
                continue
            if not operation.served and entry.unlearn.update == "full":
                planner.notes.append(
                    f"{ADAPTER_OFF}: left out for {label}, whose full update leaves no adapter to "
                    "switch off"
                )
                continue
            cell = replace(operation.cell, condition=ADAPTER_OFF)
            before = operation.before
            yield Evaluation(
                cell,
                operation,
                before,
                before,
                only=operation.after,
                never_knew=operation.never_knew,
            )
