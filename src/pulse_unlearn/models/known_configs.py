"""The config.json of models that shipped experiments name, as far as sizes go.

So that `pulse plan` can estimate an experiment before anything is downloaded. A config.json that is
there is always preferred.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from pulse_unlearn.models.formulas import Config


@cache
def known_configs() -> dict[str, Config]:
    """Return hub id -> what its config.json says of sizes."""
    path = files("pulse_unlearn").joinpath("models/known_configs.json")
    found: dict[str, Config] = json.loads(path.read_text(encoding="utf-8"))
    return found
