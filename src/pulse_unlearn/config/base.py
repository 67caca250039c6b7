"""What every settings model is built of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]
Decides = Literal["strict", "rotated", "likelihood"]
EMBEDDED = "world"
"""Name of the model in the package, and of what was made for it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where to look for a good value of a number: in a field's `Annotated`, read by `pulse tune`.

    It allows and forbids nothing. Integers are drawn where the field is one.
    """

    low: float
    high: float
    log: bool = True
    """Whether orders of magnitude count alike."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Likewise of a `Literal` of words: `pulse tune` tries each of them."""


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown keys, no silent coercion of text to numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )
