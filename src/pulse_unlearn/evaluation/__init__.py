"""From answers to numbers; only `predict` needs a model."""
