"""Two finished runs side by side: settings, answers that flipped, and paired differences.

Reads run folders and nothing else: no model, no torch.
"""

from pulse_unlearn.diff.compare import Diff, as_json, compare_runs
from pulse_unlearn.diff.page import render_page
from pulse_unlearn.diff.text import text_lines

__all__ = ["Diff", "as_json", "compare_runs", "render_page", "text_lines"]
