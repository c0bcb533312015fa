"""What this machine can do: versions, engines, disk, and how to get what is missing."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from amn_dist.caches import USUAL, may_write, socket_folder
from amn_dist.errors import ConfigError, listed, printable
from amn_dist.models.precision import resolve_precision
from amn_dist.telemetry import cpu_name, package_version

MODULES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "deepspeed": "deepspeed",
    "webdataset": "webdataset",
    "nvidia-dali-cuda130": "nvidia.dali",
    "ray": "ray",
    "pydensecrf2": "pydensecrf.densecrf",
    "numba": "numba",
}
"""Distribution and the module whose import proves that it works."""


@dataclass(frozen=True)
class Check:
    """One thing looked at. needed: the system cannot work without it."""

    name: str
    ok: bool
    found: str
    advice: str = ""
    needed: bool = True


def examine() -> list[Check]:
    """Look at everything a run depends on."""
    return [
        *hardware(),
        *(module(dist, name) for dist, name in MODULES.items()),
        compiler(),
        kernel_compiler(),
        shared_memory(),
        *places(),
        *disk(),
    ]


def hardware() -> Iterator[Check]:
    """Python, processor, accelerator, precision."""
    yield Check("python", sys.version_info >= (3, 11), sys.version.split()[0], "Python 3.11 or newer")
    cores = len(os.sched_getaffinity(0))
    yield Check("processor", True, f"{cores} cores, {cpu_name()}, {torch.backends.cpu.get_cpu_capability()}")
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
    yield Check("accelerator", count > 0, names or "none", "" if count else "runs on the CPU", needed=False)
    yield Check("precision", True, str(resolve_precision("auto")).removeprefix("torch."))


def module(distribution: str, name: str) -> Check:
    """Whether a package imports, and its version."""
    version = package_version(distribution)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            importlib.import_module(name)
    except Exception as error:  # a broken native library can raise anything
        return Check(
            distribution,
            False,
            f"{version or 'absent'} ({type(error).__name__}: {printable(error)})",
            "./launch/install.sh",
        )
    return Check(distribution, True, version or "present")


def compiler() -> Check:
    """pydensecrf2 and DeepSpeed's communication op are compiled on the machine."""
    path = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    return Check(
        "C++ compiler",
        path is not None,
        path or "none",
        "" if path else "for example: apt-get install g++",
        needed=False,
    )


def kernel_compiler() -> Check:
    """Triton builds what launches a kernel with a C compiler and Python's headers, where there is a device."""
    named = os.environ.get("CC")
    path = shutil.which(named) if named else shutil.which("gcc") or shutil.which("clang")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    found = {"C compiler": path, "Python.h": str(header) if header.is_file() else None}
    missing = [name for name, where in found.items() if where is None]
    return Check(
        "GPU kernels",
        not missing,
        listed(f"{name}: {where or 'none'}" for name, where in found.items()),
        "for example: apt-get install gcc python3-dev; GPUs need both" if missing else "",
        needed=False,
    )


def shared_memory() -> Check:
    """Ray keeps its objects in /dev/shm."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage("/dev/shm").free / 2**30
        return Check(
            "/dev/shm", free >= 0.5, f"{free:.1f} GiB free", "" if free >= 0.5 else "at least 0.5 GiB", needed=False
        )
    return Check("/dev/shm", False, "absent", "Ray falls back to /tmp, slowly", needed=False)


def places() -> Iterator[Check]:
    """Where sockets go, and what libraries compile where they cannot write to their usual places."""
    try:
        yield Check("sockets", True, socket_folder())
    except ConfigError as error:
        found, _, advice = str(error).rpartition("; ")
        yield Check("sockets", False, found, advice)
    for variable, usual in USUAL.items():
        if not any(map(may_write, usual)):
            place = os.environ.get(variable, "")
            advice = "" if may_write(place) else f"set {variable} to a folder that can be written"
            yield Check(f"cache {variable}", not advice, place or "none", advice, needed=variable == "NUMBA_CACHE_DIR")


def disk() -> Iterator[Check]:
    """Room for runs and for temporary files."""
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        free = shutil.disk_usage(folder).free / 2**30
        yield Check(f"disk {folder}", free >= 2, f"{free:.1f} GiB free", "" if free >= 2 else "at least 2 GiB")
