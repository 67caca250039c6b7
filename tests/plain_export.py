"""Loads exports and asks them questions by the lines of their own README, and nothing of PULSE.

`python plain_export.py TASK.json`: {"folder": [{"text", "picture" or null}, ...], ...} in, the
answers by folder out.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

from PIL import Image

task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
found = {}
for folder, questions in task.items():
    card = (Path(folder) / "README.md").read_text(encoding="utf-8")
    code = card.partition("````python\n")[2].partition("````")[0]
    begin = code.index("content = ")
    names = {"folder": folder}
    exec(code[:begin], names)
    asking = compile(code[begin:], "README.md", "exec")
    bare = compile(
        code[begin:].replace('{"type": "image", "image": picture}, ', ""), "bare", "exec"
    )
    found[folder] = []
    for one in questions:
        picture = one["picture"] and Image.open(one["picture"])
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(asking if picture else bare, names | {"picture": picture, "question": one["text"]})
        found[folder].append(said.getvalue().removesuffix("\n"))
assert not [name for name in sys.modules if name.startswith("pulse_unlearn")]
print(json.dumps(found))
