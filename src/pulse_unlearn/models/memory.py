"""Memory that does not suffice, told alike by every device."""

from __future__ import annotations

import torch

SHORTAGES = (torch.OutOfMemoryError, MemoryError, RuntimeError)
"""What to catch and hand to `is_shortage`: torch has no class of its own for the CPU."""
_ON_THE_CPU = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


def is_shortage(error: BaseException) -> bool:
    """Tell whether an error says that memory, of a device or of the machine, did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ON_THE_CPU)
