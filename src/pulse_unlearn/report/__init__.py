"""Reports over a finished run: one HTML file, figures, and a table for the terminal.

Reads a run folder and nothing else: no model, no network. Importing this room is light; matplotlib
and Jinja are imported when a report is drawn.
"""

from pulse_unlearn.report.build import Report, build_report

__all__ = ["Report", "build_report"]
