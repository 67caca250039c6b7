"""Tables for papers, from a finished run: the report's numbers as LaTeX, Markdown or CSV."""

from pulse_unlearn.tables.build import NamedTable, choose, paper_tables
from pulse_unlearn.tables.formats import FORMATS, Ends, Format

__all__ = ["FORMATS", "Ends", "Format", "NamedTable", "choose", "paper_tables"]
