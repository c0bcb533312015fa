"""Two hosts on one machine: network namespaces with an address each, joined by a cable (a veth pair)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NET = "10.77.0"
PORT = 6399
STORE = "--object-store-memory=150000000"


def command(*words: str | Path, **options: object) -> str:
    """Run a command; its output, or a failure that shows it."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return str(done.stdout)


@dataclass(frozen=True)
class Hosts:
    """A Ray cluster over namespaces. names: the first is the head's. ray: where Ray keeps its sockets and logs."""

    folder: Path
    names: tuple[str, ...]
    ray: Path

    @property
    def address(self) -> str:
        return f"{NET}.1:{PORT}"

    def environment(self) -> dict[str, str]:
        """Fast detection of dead nodes; children import this checkout."""
        health = {"initial_delay_ms": "1000", "period_ms": "1000", "timeout_ms": "1000", "failure_threshold": "5"}
        return {
            **{key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")},
            **{f"RAY_health_check_{key}": value for key, value in health.items()},
            "PYTHONPATH": str(ROOT),
            "PYTHON": sys.executable,
            "SSH": "ip netns exec",
            "STATE": str(self.folder),
            "PORT": str(PORT),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            # Its own place, and a short one (sockets): other Rays of this machine must not take it for theirs.
            "RAY_TMPDIR": str(self.ray),
        }

    def launch(self, verb: str) -> str:
        """launch/hosts.sh over these hosts; `ip netns exec` stands for ssh."""
        return command(ROOT / "launch" / "hosts.sh", verb, self.folder / "hosts", env=self.environment())

    def amn(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start `amn` on the first host."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[0], sys.executable, "-m", "amn_dist", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(),
        )

    def kill(self, name: str) -> None:
        """The host loses power: every process of its namespace dies at once."""
        for pid in command("ip", "netns", "pids", name).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
def wires(tmp_path: Path, wait_for: Callable[..., None]) -> Iterator[Hosts]:
    """Two hosts on which nothing runs yet; everything of them is removed afterwards."""
    if os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("ip", "awk", "setsid")):
        pytest.skip("network namespaces need root and iproute2")
    names = tuple(f"amn{os.getpid() % 10000}{letter}" for letter in "ab")
    if subprocess.run(["ip", "netns", "add", names[0]], capture_output=True).returncode:
        pytest.skip("this kernel or container lets nobody make network namespaces")
    wired = Hosts(tmp_path / "cluster", names, Path(tempfile.mkdtemp(prefix="amn")))
    wired.folder.mkdir()
    try:
        command("ip", "netns", "add", names[1])
        cables = [f"{name}v" for name in names]
        command("ip", "link", "add", cables[0], "netns", names[0], "type", "veth", "peer", cables[1], "netns", names[1])
        for number, (name, cable) in enumerate(zip(names, cables, strict=True), 1):
            inside = ("ip", "-n", name)
            command(*inside, "link", "set", "lo", "up")
            command(*inside, "address", "add", f"{NET}.{number}/24", "dev", cable)
            command(*inside, "link", "set", cable, "up")
            command(*inside, "route", "add", "default", "via", f"{NET}.{3 - number}")
        yield wired
    finally:
        for name in names:
            wired.kill(name)
        for name in names:
            with suppress(AssertionError, pytest.fail.Exception):  # a namespace that was never made has none
                wait_for(lambda: not command("ip", "netns", "pids", name), f"the end of {name}", seconds=30)  # noqa: B023
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        shutil.rmtree(wired.ray, ignore_errors=True)


@pytest.fixture
def hosts(wires: Hosts) -> Hosts:
    """Two hosts with a core each, up as one cluster."""
    lines = [f"{name} {NET}.{number} --num-cpus=1 {STORE}" for number, name in enumerate(wires.names, 1)]
    (wires.folder / "hosts").write_text("\n".join(lines) + "\n")
    wires.launch("up")
    return wires
