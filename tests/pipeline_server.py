"""Starts `pulse` commands as forks of one process that has torch loaded already.

Importing torch and transformers takes seconds, and the crash tests need many lives. A fork costs
nothing, is a process of its own, and can be killed like any other. Requests and replies are lines
of JSON on standard input and output; `pipeline_cases.Server` is the other end. With a request as
argument this process is the command itself, and forks nothing.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NoReturn

import pulse_unlearn.training.loop
import undrawn
from pulse_unlearn.registry import third_party


def preload() -> None:
    """Import what a run needs; no tensor is touched before the fork."""
    import transformers.models.clip.image_processing_pil_clip
    import transformers.models.clip.modeling_clip
    import transformers.models.llama.modeling_llama
    import transformers.models.llava.modeling_llava
    import transformers.models.llava.processing_llava  # noqa: F401
    from PIL import Image
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    import pulse_unlearn.api.experiments
    import pulse_unlearn.cli.plan_text
    import pulse_unlearn.cli.progress
    import pulse_unlearn.pipeline.run
    import pulse_unlearn.pipeline.runners
    import pulse_unlearn.report.page  # noqa: F401

    for name in ("rich.progress", "matplotlib.backends.backend_svg"):
        import_module(name)
    # Tables that each process would make for itself.
    Image.preinit()
    get_checkpoint_conversion_mapping("llava")
    third_party("pulse_unlearn.runners", "score")
    gc.freeze()  # a collection would touch, and so copy, every page


def kill_before(events: int, mark: str) -> None:
    """Die by -9 before the given touch of the disk; only paths that hold `mark` count."""
    seen = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        changes = event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
        if event == "open":
            mode = arguments[1]
            changes = isinstance(mode, str) and any(letter in mode for letter in "wxa+")
        if changes and any(mark in str(part) for part in arguments[:2]):
            seen += 1
            if seen == events:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def arm(fault: dict[str, Any]) -> None:
    """Let the shim that this process was started with count, and spoil one call (see its file)."""
    log = os.open(fault["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    place = os.fsencode(fault["folder"])
    numbers = (ctypes.c_long(fault["call"]), fault["mode"], fault["error"], log)
    ctypes.CDLL(None).injection_arm(place, *numbers)
    # How long a step took is all that differs between two runs; without it all bytes are compared.
    clock = SimpleNamespace(monotonic=time.monotonic, perf_counter=lambda: 0.0)
    pulse_unlearn.training.loop.time = clock  # type: ignore[attr-defined]


def live(request: dict[str, object]) -> None:
    """Run the command's own `main`, with its output in the log."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(str(request["log"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    undrawn.stand_in()
    sys.argv = ["pulse", *request["argv"]]  # type: ignore[misc]
    if request["poison"]:
        import pipeline_cases

        pipeline_cases.poison(str(request["poison"]))
    if request["fault"]:
        arm(request["fault"])  # type: ignore[arg-type]
    if request["events"]:
        kill_before(int(request["events"]), str(request["mark"]))  # type: ignore[call-overload]
    from pulse_unlearn.cli import main

    main()


def start(request: dict[str, object]) -> int:
    return os.fork() or be(request)


def be(request: dict[str, object]) -> NoReturn:
    """Be the command, and end this process with its code."""
    code = 70
    try:
        live(request)
        code = 0
    except SystemExit as ending:
        code = int(ending.code or 0)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def serve() -> None:
    preload()
    for line in sys.stdin:
        request = json.loads(line)
        reply = ended(request["wait"]) if "wait" in request else start(request)
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:]:
        be(json.loads(sys.argv[1]))
    serve()
