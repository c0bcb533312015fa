"""What tests share: where golden fixtures and small real data (no part of the project) lie, a disk that fills up."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# One thread a process: tests start several, and spinning threads of many pools starve each other. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without a CUDA driver the device kernels are interpreted. Before triton loads.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

LONG = ("pipeline", "engines", "shards")
"""Folders whose files take longest; with several workers they come first, so that none is alone at the end."""

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
GOLDEN = {"drawn": Path(__file__).resolve().with_name("golden"), "photographs": SHARED / "golden"}
"""Places of golden fixtures. The second holds those of dense CRFs on photographs, which may not be passed on."""


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden fixtures."""
    return GOLDEN["drawn"]


@pytest.fixture(scope="session", params=[name for name, folder in GOLDEN.items() if folder.is_dir()])
def crf_golden(request: pytest.FixtureRequest) -> Path:
    """Folder of fixtures of dense CRFs; the test runs on photographs too where they are at hand."""
    return GOLDEN[request.param]


@pytest.fixture(scope="session")
def photographs() -> Path:
    """Folder of the golden fixtures of dense CRFs on photographs; the test is skipped without it."""
    folder = GOLDEN["photographs"]
    if not folder.is_dir():
        pytest.skip(f"golden fixtures on photographs are absent ({folder}); those on drawn scenes are tested")
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    items.sort(key=lambda item: LONG.index(name) if (name := item.path.parent.name) in LONG else len(LONG))
