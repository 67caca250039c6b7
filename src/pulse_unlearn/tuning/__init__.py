"""Looking for good settings of a method, on people whom no result is about."""

from pulse_unlearn.tuning.objective import OBJECTIVE, Measured, measure
from pulse_unlearn.tuning.people import tuning_experiment
from pulse_unlearn.tuning.space import space_of, values_given, with_values
from pulse_unlearn.tuning.study import Studied, tune

__all__ = [
    "OBJECTIVE",
    "Measured",
    "Studied",
    "measure",
    "space_of",
    "tune",
    "tuning_experiment",
    "values_given",
    "with_values",
]
