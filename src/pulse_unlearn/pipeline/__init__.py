"""A plan's stages in order: skipped when complete, resumed when partial, then the results."""
