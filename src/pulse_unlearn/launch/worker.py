"""A process that carries out one stage after another for a coordinator."""

from __future__ import annotations

import time
import traceback

from pulse_unlearn.config import parse_experiment
from pulse_unlearn.errors import Interrupted, PulseError
from pulse_unlearn.launch.engines import Job, Outcome
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.pipeline.progress import Lines
from pulse_unlearn.pipeline.signals import StopRequest
from pulse_unlearn.pipeline.times import logs_of
from pulse_unlearn.pipeline.work import Pipeline
from pulse_unlearn.registries import schemas


class Worker:
    """What a process keeps between stages: data, plan, and the models of the last ones."""

    def __init__(self, job: Job, label: str) -> None:
        experiment = parse_experiment(job.experiment, where="experiment", schemas=schemas())
        run = job.runs / experiment.name
        self.label, self.job = label, job
        self.log = logs_of(run) / f"{label}.log"
        self._inputs = read_inputs(experiment)
        self._pipeline = Pipeline(
            self._inputs, run, repair=False, progress=Lines(self._say), stop=StopRequest()
        )
        self._pipeline.progress.begin(len(self._inputs.plan.stages))

    def carry_out(self, name: str, fingerprint: str, stop: StopRequest) -> Outcome:
        """Carry out one stage; what PULSE raises on purpose comes back with the outcome."""
        began = time.monotonic()
        pipeline = self._pipeline
        pipeline.stop = stop
        try:
            stop.check()
            stage = self._inputs.stage(name, fingerprint)
            number = self._inputs.keys[name].number
            pipeline.progress.start(number, stage)
            computed = pipeline.work_on(stage)
            seconds = time.monotonic() - began
            if computed:
                pipeline.progress.finish(number, stage, seconds)
            else:
                pipeline.progress.reuse(number, stage)
            return Outcome(self.label, seconds, computed)
        except PulseError as error:
            text = "".join(traceback.format_exception(error))
            self._say(f"{name} ended: {error}" if isinstance(error, Interrupted) else text)
            return Outcome(self.label, time.monotonic() - began, False, error, text)

    def _say(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {text}\n")
