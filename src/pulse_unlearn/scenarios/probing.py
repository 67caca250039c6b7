"""Probes: what a model's hidden states tell of D_unlearn, whatever the model says.

A linear probe learns from known people to read the true option's letter off the last token of the
prompt, and then reads it for D_unlearn. The retain model, probed alike, says what the options
themselves give away; it never knew, and its probe should find nothing.
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
from pulse_unlearn.scenarios.stages import NOBODY, Group, ProbeStage

PROBED = "probed"
"""The condition is `probed@DEPTH`; `retain_model+probed@DEPTH` is the control."""
Depth = Annotated[float, Field(gt=0, le=1)]


@EVALUATIONS.register("probing")
class Probing(Settings):
    """Linear probes of every method's last model, of the target model and of the retain model.

    A probe is fitted to D_retain and unseen people, whom all these models know alike, in every
    order that is scored, and reads questions about D_unlearn in theirs. Of a served system the
    model inside is probed.
    """

    depths: Annotated[tuple[Depth, ...], Field(min_length=1)] = (0.5, 0.75, 1.0)
    """Layers that are probed, as shares of the language model's depth: 1 is the last."""

    def plan(self, planner: Planner) -> Iterator[Evaluation]:
        """Yield a row for each depth of a last model, its target model and its retain model."""
        for operation in last_operations(planner):
            cell = operation.cell
            known = (operation.retain, *(group for _, group in operation.unseen))
            known = tuple(group for group in known if group != NOBODY)
            if not known:
                planner.notes.append(
                    f"probing: left out for {cell.method} in {cell.scenario}, where there is "
                    "nobody but D_unlearn to fit a probe to"
                )
                continue
            model = retain_model_of(planner, operation)
            for depth in dict.fromkeys(self.depths):
                asked = self._probed(planner, operation, attacked_model(operation), known, depth)
                control = self._probed(planner, operation, model, known, depth) if model else ""
                at = replace(cell, condition=f"{PROBED}@{depth:g}")
                row = Evaluation(
                    at, operation, asked, operation.before, only=asked, never_knew=control
                )
                yield row
                if not operation.model:
                    target = Model(operation.target, operation.before)
                    before = self._probed(planner, operation, target, known, depth)
                    start = replace(at, request=0)
                    yield Evaluation(start, operation, before, only=before)
                if control:
                    of_control = replace(at, condition=f"{RETAIN_MODEL}+{at.condition}")
                    yield replace(row, cell=of_control, scores=control, never_knew="")

    def _probed(
        self,
        planner: Planner,
        operation: Operation,
        model: Model,
        known: tuple[Group, ...],
        depth: float,
    ) -> str:
        """Add the probe of one model; the target model's is shared by a scenario's methods."""
        cell = operation.cell
        stem = planner.stages[model.scored].name.removesuffix("/score")
        if model.scored == operation.before:
            stem = f"seed{cell.seed}/{cell.scenario}/target"
        return planner.add(
            ProbeStage(
                name=f"{stem}/probe{100 * depth:g}",
                model=model.model,
                chain=model.chain,
                ask=(operation.forget,),
                learn=known,
                depth=depth,
                scoring=planner.experiment.scoring,
            )
        )
