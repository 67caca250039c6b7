"""Packing and caches: the same numbers as the plain forward pass, with less computation."""
