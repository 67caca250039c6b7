"""Two methods, an answer parser and an evaluation for PULSE."""
