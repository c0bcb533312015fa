"""Libraries that race and are no part of the package: they lie in a folder of their own, beside ours in no lock."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".peers"
"""Where they lie; not in version control."""
LOCK = Path(__file__).with_name("packages.lock")
NUMPY_2 = "-DNPY_IN_ARRAY=NPY_ARRAY_IN_ARRAY"
"""SimpleCRF asks for a name that NumPy 2 has dropped."""


def bring() -> None:
    """Install what races, unless it is there; then let this process and its children find it."""
    installed = FOLDER / LOCK.name
    if not (installed.is_file() and installed.read_bytes() == LOCK.read_bytes()):
        uv = Path(sys.executable).with_name("uv")
        command: list[str | Path] = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--python",
            sys.executable,
        ]
        subprocess.run(
            [*command, "--target", FOLDER, "--requirements", LOCK], check=True, env={**os.environ, "CFLAGS": NUMPY_2}
        )
        installed.write_bytes(LOCK.read_bytes())
    find()


def find() -> None:
    """Let this process and its children find what is installed there; ours come first."""
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT), str(FOLDER))))


def there(module: str) -> bool:
    """Whether a library can be imported."""
    return find_spec(module) is not None
