"""Local folders for what needs files while a run lies behind a URL."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from amn_dist.caches import private_folder
from amn_dist.errors import ConfigError, printable
from amn_dist.storage.paths import RemotePath

SCRATCH = "AMN_SCRATCH"
"""Variable: a folder on a local disk of this machine; one in the platform's folder for temporary files without it."""
DEADLINE_S = 10.0
"""Seconds that last words may take."""


def scratch(remote: RemotePath, part: str) -> Path:
    """The local folder for a part of the work on a place; the same on every call. What lies there may be lost."""
    folder = scratch_root() / f"{remote.name}-{hashlib.sha256(str(remote).encode()).hexdigest()[:16]}" / part
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({printable(error)}); set {SCRATCH} to a local folder") from error
    return folder


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Wait until no other process of this machine is in this block with this folder."""
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def with_deadline(work: Callable[[], None]) -> None:
    """Do some work on a storage that may be what ended all other work: wait a little for it, and no longer."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)


def scratch_root() -> Path:
    """The folder of all that, of this user alone."""
    setting = os.environ.get(SCRATCH)
    if setting:
        return Path(setting)
    return private_folder(SCRATCH)
