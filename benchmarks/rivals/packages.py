"""Libraries that race and are no part of the package: they lie in a folder of their own, with locks of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".peers"
"""Where they lie; not in version control."""
LOCK, COMPILED = (Path(__file__).with_name(f"{name}.lock") for name in ("packages", "compiled"))
"""The second needs a compiler: where it cannot be built the race goes on without it."""
NUMPY_2 = "-DNPY_IN_ARRAY=NPY_ARRAY_IN_ARRAY -fpermissive -w"
"""SimpleCRF asks for a name that NumPy 2 has dropped, and converts pointers as C++ does not."""


def bring() -> None:
    """Install what races, unless it is there; then let this process and its children find it."""
    for lock, needed in ((LOCK, True), (COMPILED, False)):
        installed = FOLDER / lock.name
        if not (installed.is_file() and installed.read_bytes() == lock.read_bytes()) and _install(lock, needed=needed):
            installed.write_bytes(lock.read_bytes())
    find()


def _install(lock: Path, *, needed: bool) -> bool:
    """Put what a lock names into the folder; whether it is there then."""
    uv = Path(sys.executable).with_name("uv")
    command: list[str | Path] = [uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--python", sys.executable, "--target", FOLDER, "--requirements", lock]
    done = subprocess.run(command, check=needed, env={**os.environ, "CPPFLAGS": NUMPY_2}, stderr=subprocess.PIPE)
    if done.returncode:
        print(f"{lock.name}: cannot be built here, and is left out: {done.stderr.decode()[-300:]}", file=sys.stderr)
    return not done.returncode


def find() -> None:
    """Let this process and its children find what is installed there; ours come first."""
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT), str(FOLDER))))


def there(module: str) -> bool:
    """Whether a library can be imported."""
    return find_spec(module) is not None
