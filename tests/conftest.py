"""What tests share: where golden fixtures and small real data (no part of the project) lie, a disk that fills up."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drawn.bad import write_bad
from tests.drawn.coco import write_coco

# One thread a process: tests start several, and spinning threads of many pools starve each other. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without a CUDA driver the device kernels are interpreted. Before triton loads.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

LONG = ("pipeline", "engines", "shards")
"""Folders whose files take longest; with several workers they come first, so that none is alone at the end."""

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
DATA = SHARED / "data"
SOURCES = ("drawn", "shared") if DATA.is_dir() else ("drawn",)
GOLDEN = {"drawn": Path(__file__).resolve().with_name("golden"), "photographs": SHARED / "golden"}
"""Places of golden fixtures. The second holds those of dense CRFs on photographs, which may not be passed on."""


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden fixtures."""
    return GOLDEN["drawn"]


@pytest.fixture(scope="module", params=[name for name, folder in GOLDEN.items() if folder.is_dir()])
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
    if not DATA.is_dir():
        pytest.skip(f"real data sets are absent ({DATA})")
    return DATA


@pytest.fixture(scope="session")
def drawn_bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of files with one fault each (tests/drawn/bad.py)."""
    return write_bad(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module", params=SOURCES)
def bad(request: pytest.FixtureRequest, drawn_bad: Path) -> Path:
    """Folder of files with one fault each, drawn here; those of the real data sets, too, where they are at hand."""
    return drawn_bad if request.param == "drawn" else DATA / "bad"


@pytest.fixture(scope="session")
def drawn_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a drawn set of COCO's layout (tests/drawn/coco.py)."""
    return write_coco(tmp_path_factory.mktemp("coco") / "sample")


@pytest.fixture(scope="module", params=SOURCES)
def coco_sample(request: pytest.FixtureRequest, drawn_coco: Path) -> Path:
    """Folder of a set of COCO's layout, drawn here; one of photographs, too, where it is at hand."""
    return drawn_coco if request.param == "drawn" else DATA / "coco-sample"


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
