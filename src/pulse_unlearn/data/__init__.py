"""Files to individuals, questions and examples; everything is checked before anything is spent."""
