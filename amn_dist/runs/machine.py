"""What this machine has for a run: workers, disk, memory, libraries."""

from __future__ import annotations

import os
import resource
import shutil
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import torch

from amn_dist.config import Config
from amn_dist.ops.devices import has_gpu


def is_installed(module: str) -> bool:
    """Whether a module could be imported; it is not imported here."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would lie in
        return False


def workers_here(config: Config) -> int:
    """Networks that run at a time on this machine, without a cluster."""
    if config.farm.name == "local":
        return 1
    cores = max(len(os.sched_getaffinity(0)) // config.farm.threads, 1)
    return min(config.farm.workers or cores, cores) if config.farm.pools != "two" else config.farm.network_workers or 1


def free_disk(folder: Path) -> int:
    """Bytes free where a folder is, or will be."""
    there = folder.absolute()
    while not os.path.exists(there) and there != there.parent:
        there = there.parent
    return shutil.disk_usage(there).free


def memory_here() -> tuple[int, int]:
    """Bytes of memory that a network can have here at all, and those that are available now."""
    if has_gpu():
        free, total = torch.cuda.mem_get_info()
        return total, free
    return host_memory()


def host_memory() -> tuple[int, int]:
    """As memory_here, of the host: what the system has, or what this process and its group may take."""
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
