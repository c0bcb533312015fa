"""Hosts on one machine: network namespaces with an address each, joined by a switch in a namespace of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NET = "10.77.0"
SWITCH = f"{NET}.254"
"""Address of whatever listens in the switch's namespace."""
PORT = 6399
STORE = "--object-store-memory=150000000"
TOOLS = ("ip", "awk", "setsid")
END_S = 30.0
"""Seconds that killed processes get to be gone."""


class NoNamespaces(Exception):
    """Why there can be no such hosts here."""


@dataclass(frozen=True)
class Hosts:
    """A Ray cluster over namespaces. names: the first is the head's. switch: namespace that joins them. ray: where Ray
    keeps its sockets and logs. variables: set for every process, beside those of this one."""

    folder: Path
    names: tuple[str, ...]
    switch: str
    ray: Path
    variables: Mapping[str, str] = field(default_factory=dict)

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
            **self.variables,
        }

    def list_hosts(self, cores: int = 1) -> None:
        """Write the file that launch/hosts.sh reads."""
        lines = [f"{name} {NET}.{number} --num-cpus={cores} {STORE}" for number, name in enumerate(self.names, 1)]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")

    def launch(self, verb: str) -> str:
        """launch/hosts.sh over these hosts; `ip netns exec` stands for ssh."""
        return command(ROOT / "launch" / "hosts.sh", verb, self.folder / "hosts", env=self.environment())

    def python(self, name: str, *words: str | Path, said: Path | None = None) -> subprocess.Popen[str]:
        """Start Python in a namespace; what it says comes by a pipe, or goes to a file."""
        with said.open("w") if said else nullcontext(subprocess.PIPE) as out:
            return subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, *map(str, words)],
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.environment(),
            )

    def amn(self, *words: str | Path, said: Path | None = None) -> subprocess.Popen[str]:
        """Start `amn` on the first host."""
        return self.python(self.names[0], "-m", "amn_dist", *words, said=said)

    def processes(self, name: str) -> list[int]:
        """What runs in a namespace."""
        return [int(pid) for pid in command("ip", "netns", "pids", name).split()]

    def kill(self, name: str) -> None:
        """The host loses power: every process of its namespace dies at once."""
        for pid in self.processes(name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def command(*words: str | Path, **options: object) -> str:
    """Run a command; its output, or a failure that shows it."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return str(done.stdout)


@contextmanager
def wired(folder: Path, count: int, variables: Mapping[str, str] | None = None) -> Iterator[Hosts]:
    """Hosts on which nothing runs yet; all of it is removed afterwards. Raises NoNamespaces with the reason."""
    if os.geteuid() != 0 or not all(shutil.which(tool) for tool in TOOLS):
        raise NoNamespaces("network namespaces need root and iproute2")
    stem = f"amn{os.getpid() % 10000}"
    names, switch = tuple(f"{stem}{chr(ord('a') + number)}" for number in range(count)), f"{stem}s"
    if subprocess.run(["ip", "netns", "add", switch], capture_output=True).returncode:
        raise NoNamespaces("this kernel or container lets nobody make network namespaces")
    hosts = Hosts(folder, names, switch, Path(tempfile.mkdtemp(prefix="amn")), variables or {})
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _join(hosts)
        yield hosts
    finally:
        _remove(hosts)


def _join(hosts: Hosts) -> None:
    """A bridge, and a cable from it to every host."""
    inside = ("ip", "-n", hosts.switch)
    command(*inside, "link", "set", "lo", "up")
    command(*inside, "link", "add", "bridge", "type", "bridge")
    command(*inside, "address", "add", f"{SWITCH}/24", "dev", "bridge")
    command(*inside, "link", "set", "bridge", "up")
    for number, name in enumerate(hosts.names, 1):
        cable, plug = f"{name}v", f"{name}p"
        command("ip", "netns", "add", name)
        command("ip", "link", "add", cable, "netns", name, "type", "veth", "peer", plug, "netns", hosts.switch)
        command(*inside, "link", "set", plug, "master", "bridge", "up")
        there = ("ip", "-n", name)
        command(*there, "link", "set", "lo", "up")
        command(*there, "address", "add", f"{NET}.{number}/24", "dev", cable)
        command(*there, "link", "set", cable, "up")
        command(*there, "route", "add", "default", "via", SWITCH)


def _remove(hosts: Hosts) -> None:
    """Kill what runs, wait for its end, take the namespaces away; one that was never made has nothing."""
    there = [name for name in (*hosts.names, hosts.switch) if Path("/run/netns", name).exists()]
    until = time.monotonic() + END_S
    for name in there:
        hosts.kill(name)
    while any(hosts.processes(name) for name in there) and time.monotonic() < until:
        time.sleep(0.02)
    for name in there:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    shutil.rmtree(hosts.ray, ignore_errors=True)
