"""How much memory there is on this host."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path


def host_memory() -> tuple[int, int]:
    """Bytes of memory that this process can have on this host at all, and those that are available now: what the system
    has, or what the process and its control group may take."""
    meminfo = _meminfo()
    limits = [limit for limit in (resource.getrlimit(resource.RLIMIT_AS)[0], _cgroup_limit()) if limit > 0]
    return min([meminfo["MemTotal"], *limits]), min([meminfo["MemAvailable"], *limits])


def _meminfo() -> dict[str, int]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}


def _cgroup_limit() -> int:
    """Bytes the control group of this process may have; 0 where nothing limits it."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            return int(Path(path).read_text())
    return 0
