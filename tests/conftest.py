"""What tests share: examples of property tests, golden fixtures, small real data, a disk that fills up."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

# One thread a process: tests start several, and spinning threads of many pools starve each other. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without a CUDA driver the device kernels are interpreted. Before triton loads.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

LONG = ("pipeline", "engines", "shards")
"""Folders whose files take longest; with several workers they come first, so that none is alone at the end."""

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.register_profile(
    "explore",
    derandomize=False,
    deadline=None,
    max_examples=int(os.environ.get("AMN_EXAMPLES", "5000")),
    print_blob=True,
)

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


class Told(NamedTuple):
    """How a command ended."""

    code: int | str | None
    out: str
    err: str


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


@pytest.fixture
def amn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Told]]:
    """The command line in this process, wide enough for any table: arguments to exit code and what it says."""
    from amn_dist.cli import main

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERM", "dumb")

    def call(*arguments: object) -> Told:
        monkeypatch.setattr(sys, "argv", ["amn", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
            sys.exit(0)
        return Told(end.value.code, *capsys.readouterr())

    yield call
    signal.signal(signal.SIGTERM, handler)


def _explores(config: pytest.Config) -> bool:
    """Whether property tests look for new examples (`-m explore`); else they try the same ones on every run."""
    return "explore" in config.getoption("markexpr").split()


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("explore" if _explores(config) else "repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the long files first; mark property tests, which take as long as they like while they explore."""
    items.sort(key=lambda item: LONG.index(name) if (name := item.path.parent.name) in LONG else len(LONG))
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.explore)
            if _explores(config):
                item.add_marker(pytest.mark.timeout(0))
