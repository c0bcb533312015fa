"""What tests share: where golden fixtures and small real data lie (no part of the project), a disk that fills up."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# One thread a process: tests start several, and spinning threads of many pools starve each other. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without a CUDA driver the device kernels are interpreted. Before triton loads.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

LONG = ("pipeline", "engines", "shards")
"""Folders whose files take longest; with several workers they come first, so that none is alone at the end."""

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Torch's random numbers in a test do not depend on the tests before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden fixtures; the test is skipped without it."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip(f"golden fixtures are absent ({folder})")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the small real data sets; the test is skipped without it."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"real data sets are absent ({folder})")
    return folder


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], Path]]:
    """Makes a folder a file system of its own, of a size such as 64k; the test is skipped where none may be mounted."""
    mounted: list[Path] = []

    def mount(folder: Path, size: str) -> Path:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a full disk needs the right to mount a tmpfs")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """Returns when something is reached; fails the test after `seconds`, or when the process that should do it ends."""

    def wait(
        reached: Callable[[], bool], what: str, process: subprocess.Popen[Any] | None = None, seconds: float = 240.0
    ) -> None:
        end = time.monotonic() + seconds
        while not reached():
            if process is not None and process.poll() is not None:
                pytest.fail(f"ended with code {process.returncode} before {what}: {process.communicate()[0]}")
            if time.monotonic() > end:
                said = "" if process is None else f": {killed(process)}"
                pytest.fail(f"{what}: not within {seconds:.0f} s{said}")
            time.sleep(0.02)

    return wait


def killed(process: subprocess.Popen[Any]) -> Any:
    """End a process; what it said."""
    process.kill()
    return process.communicate()[0]


@pytest.fixture(scope="session")
def reserve_port() -> Iterator[Callable[[], int]]:
    """Gives ports of this machine that nobody else is given while the tests run.

    Each is bound, but not listened on: servers that ask for reuse may listen there, as torch's and Python's do.
    """
    with contextlib.ExitStack() as stack:

        def reserve() -> int:
            held = stack.enter_context(socket.socket())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
            return int(held.getsockname()[1])

        yield reserve


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    items.sort(key=lambda item: LONG.index(name) if (name := item.path.parent.name) in LONG else len(LONG))
