"""Methods of one or several runs beside each other: what is forgotten, kept, and brought back."""
