"""Which methods the costly cases of the contract run on each time, and which in `make test-all`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pulse_unlearn.methods import METHODS

LOSSES = [name for name, method in METHODS if hasattr(method, "terms")]
REPRESENTATIVES = ("ga", "ga_klr", "npo", "dpo", "rmu", "gradient_projection", "undial")
"""Losses that together need all that losses need; the others differ in arithmetic alone, which
`test_methods_losses.py` and `test_methods_published.py` check for every one."""

ALIKE = ("alkn", "sine_project", "smfa")
"""Procedures that ask a session for nothing that others do not; `test_methods_procedures.py` cuts
off those that keep something between steps or phases."""


def costly(names: Iterable[str]) -> list:
    """Return the names as test parameters; methods that represent no others are slow."""
    return [
        pytest.param(name, marks=pytest.mark.slow)
        if name in ALIKE or (name in LOSSES and name not in REPRESENTATIVES)
        else name
        for name in names
    ]
