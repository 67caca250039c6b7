"""Machines of one computer: network namespaces joined by a bridge, each with a name and a raylet.

The disk is the only thing they share, as an NFS server would be: without locks of the operating
system, and with leases of a few seconds.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from pipeline_cases import environment

RENEWED_EVERY, RUNS_OUT_AFTER = 0.3, 3.0
SITE = f"""
import os, socket, time
from pathlib import Path
from pulse_unlearn import store
from pulse_unlearn.store import checkpoints, leases, stages

leases.RENEWED_EVERY, leases.RUNS_OUT_AFTER = {RENEWED_EVERY}, {RUNS_OUT_AFTER}
FLAGS = Path(__file__).parent / "hold"


class NoLock(stages.FileLock):
    def acquire(self, *args, **kwargs):
        raise NotImplementedError


def save(*args, **kwargs):
    saved = real(*args, **kwargs)
    while any((FLAGS / name).exists() for name in ("all", socket.gethostname())):
        time.sleep(0.02)
    return saved


stages.FileLock, real = NoLock, checkpoints.save
checkpoints.save = store.save = save
"""
"""What every Python process of these machines begins with; a worker is held at its checkpoints."""
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # nobody else is on this network
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_raylet_start_wait_time_s": "120",
}
PORT = 6399
SOCKETS = Path("/tmp/ray")
"""Where Ray keeps what belongs to one machine."""
LIMIT = 120.0


def obstacle() -> str:
    """Why machines cannot be made here; empty if they can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "network namespaces take root on Linux"
    missing = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)} (iproute2, util-linux)"
    probe = f"pulse{os.getpid()}p"
    try:
        _ip("netns", "add", probe)
        _ip("-n", probe, "link", "add", "name", "b", "type", "bridge")
        _ip("-n", probe, "link", "add", "name", "v1", "type", "veth", "peer", "name", "eth9")
    except subprocess.CalledProcessError as error:
        return f"this machine makes no network namespaces: {error.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return ""


def _ip(*argv: str) -> str:
    told = subprocess.run(["ip", *argv], check=True, capture_output=True, text=True)
    return told.stdout


class Network:
    """So many machines, numbered from 1; a context manager, which ends what runs on them."""

    def __init__(self, root: Path, machines: int) -> None:
        self.root, self.numbers = root, range(1, machines + 1)
        self.mark = f"pulse{os.getpid()}"
        self.hub = f"{self.mark}hub"
        self.site = root / "site"
        self.hold = self.site / "hold"
        self.hold.mkdir(parents=True)
        (self.site / "sitecustomize.py").write_text(SITE)

    def __enter__(self) -> Network:
        _ip("netns", "add", self.hub)
        _ip("-n", self.hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self.hub, "link", "set", "bridge", "up")
        for number in self.numbers:
            name, near, far = self.name(number), f"v{number}", "eth0"
            _ip("netns", "add", name)
            _ip("-n", self.hub, "link", "add", near, "type", "veth", "peer", far, "netns", name)
            _ip("-n", self.hub, "link", "set", near, "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", far)
            for link in (far, "lo"):
                _ip("-n", name, "link", "set", link, "up")
            # By the way out Ray tells a machine's address; it need not lead anywhere.
            _ip("-n", name, "route", "add", "default", "via", self.address(254))
        return self

    def __exit__(self, *_: object) -> None:
        for number in self.numbers:
            self.send(number, signal.SIGKILL)
        for number in self.numbers:
            subprocess.run(["ip", "netns", "del", self.name(number)], check=False)
        subprocess.run(["ip", "netns", "del", self.hub], check=False)

    def name(self, number: int) -> str:
        return f"{self.mark}m{number}"

    def number(self, name: str) -> int:
        return next(number for number in self.numbers if self.name(number) == name)

    def address(self, number: int) -> str:
        return f"10.77.0.{number}"

    def start(self, number: int, *argv: str, **variables: str) -> subprocess.Popen[str]:
        """Begin a command on a machine; what it says goes to a log of the machine."""
        temporary = self.root / f"temporary{number}"
        temporary.mkdir(exist_ok=True)
        SOCKETS.mkdir(exist_ok=True)
        own = f'hostname {self.name(number)}; mount --bind {temporary} {SOCKETS}; exec "$@"'
        paths = os.pathsep.join([str(self.site), os.environ.get("PYTHONPATH", "")])
        inside = ["unshare", "--uts", "--mount", "sh", "-c", own, "sh"]
        with self.log(number).open("a") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name(number), *inside, *argv],
                env={**environment(), **RAY, "PYTHONPATH": paths, **variables},
                stdout=log,
                stderr=log,
                text=True,
            )

    def log(self, number: int) -> Path:
        return self.root / f"machine{number}.log"

    def raylet(self, number: int, *, head: int, cpus: int = 1) -> None:
        """Start a machine's part of the cluster."""
        ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start"]
        where = (
            ["--head", f"--port={PORT}", "--include-dashboard=false"]
            if number == head
            else [f"--address={self.address(head)}:{PORT}"]
        )
        own = [f"--node-ip-address={self.address(number)}", f"--num-cpus={cpus}", "--block"]
        self.start(number, *ray, *where, *own, "--object-store-memory=100000000")

    def is_up(self, number: int, *, times: int = 1) -> bool:
        """Tell whether so many raylets have been started on a machine."""
        return self.log(number).read_text().count("Ray runtime started") >= times

    def processes(self, number: int) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self.name(number)).split()]

    def send(self, number: int, what: int) -> None:
        """Send a signal to every process of a machine."""
        for pid in self.processes(number):
            with suppress(ProcessLookupError):
                os.kill(pid, what)

    def cut(self, number: int) -> None:
        """Take a machine off the network."""
        _ip("-n", self.hub, "link", "set", f"v{number}", "down")

    def mend(self, number: int) -> None:
        _ip("-n", self.hub, "link", "set", f"v{number}", "up")


def wait_until(holds, what: str, limit: float = LIMIT) -> None:
    until = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < until, f"waited in vain: {what}"
        time.sleep(0.05)
