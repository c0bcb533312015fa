"""What this machine has for a run: workers, disk, memory, libraries."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import torch

from amn_dist.config import Config
from amn_dist.ops.devices import has_gpu
from amn_dist.ops.host_memory import host_memory


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
