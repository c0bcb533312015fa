"""What tests share: examples of property tests, golden fixtures, real data (no part of the project), a small disk."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings

from amn_dist.storage.paths import RemotePath
from amn_dist.storage.scratch import SCRATCH
from tests.drawn.bad import write_bad
from tests.drawn.coco import write_coco

# One thread a process: tests start several, and spinning threads of many pools starve each other. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Ray makes its workers yield to everything else, so beside a test of another process they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")
# A shell starts what runs in its background deaf to Ctrl-C, and what tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Without a CUDA driver the device kernels are interpreted. Before triton loads.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

LONG = ("runs", "training", "storage")
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
DATA = SHARED / "data"
SOURCES = ("drawn", "shared") if DATA.is_dir() else ("drawn",)
GOLDEN = {"drawn": Path(__file__).resolve().with_name("golden"), "photographs": SHARED / "golden"}
"""Places of golden fixtures. The second holds those of dense CRFs on photographs, which may not be passed on."""


class Told(NamedTuple):
    """How a command ended."""

    code: int | str | None
    out: str
    err: str


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Torch's random numbers in a test do not depend on the tests before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


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
def clip_golden() -> Path:
    """Folder of the golden fixtures of CLIP-ES: all of them where they are at hand, else those of the project."""
    folder = GOLDEN["photographs"] / "clip"
    return folder if folder.is_dir() else GOLDEN["drawn"]


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


@pytest.fixture
def place() -> RemotePath:
    """An empty folder behind a URL."""
    return RemotePath(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Moves this process to the machine of a name, as far as local folders go; returns its folder."""

    def move(name: str) -> Path:
        monkeypatch.setenv(SCRATCH, str(tmp_path / name))
        return tmp_path / name

    move("first")
    return move
