"""Reports over a finished run: one HTML file, figures, and a table for the terminal.

Reads a run folder and nothing else: no model, no network. Importing this room is light; matplotlib
and Jinja are imported when a report is built.
"""

from pulse_unlearn.report.build import build_report
from pulse_unlearn.report.summary import summary_lines

__all__ = ["build_report", "summary_lines"]
