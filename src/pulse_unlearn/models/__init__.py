"""Models: per-family facts, loading, adapters, encoding and the forward pass at answers."""
