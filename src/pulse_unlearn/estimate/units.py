"""Bytes, times and counts as people read them."""

from __future__ import annotations


def tokens_of(count: float) -> str:
    """Return a count of tokens, such as `1.2 M`."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def size_of(count: float) -> str:
    """Return bytes in the unit that fits; 1 GB = 10^9 bytes."""
    units = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6))
    unit, factor = next((one for one in units if count >= one[1]), ("kB", 1e3))
    return f"{count / factor:.1f} {unit}"


def time_of(seconds: float) -> str:
    """Return a duration in the unit that fits."""
    units = (("days", 86400.0), ("h", 3600.0), ("min", 60.0))
    unit, factor = next((one for one in units if seconds >= 2 * one[1]), ("s", 1.0))
    return f"{seconds / factor:.{0 if unit == 's' else 1}f} {unit}"
