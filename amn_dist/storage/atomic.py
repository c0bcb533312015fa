"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from amn_dist.errors import ShardError, printable
from amn_dist.storage.paths import AnyPath, RemotePath, path_of

UNFINISHED = ".tmp-"
"""What the name of an unfinished file contains."""


@contextmanager
def atomic_file(path: Path, *, temporary: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """A path beside `path` to write; at the end of the block what was written there takes the name `path`.

    temporary: that path, for a folder whose leftovers are told by other names. durable: on the disk before it has its
    name; without it a machine that loses power may leave an empty file. After an error the temporary is removed. The
    file has the mode of any new file, whatever who writes it makes of that: others may read it where the umask says so.
    """
    temporary = temporary or path.with_name(f"{path.name}{UNFINISHED}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield temporary
        if not stat.S_IMODE(temporary.stat().st_mode) & 0o077:  # safetensors makes files for their owner alone
            temporary.chmod(0o666 & ~_umask())
        if durable:
            _flush(temporary)
        os.replace(temporary, path)
        if durable:
            _flush(path.parent)
    finally:
        # After a failure the cause matters, not that its leftover could not be removed as well.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def commit(path: AnyPath, content: bytes | memoryview) -> None:
    """Write the bytes of a file whole or not at all, with the folders above it; behind a URL in one request.

    Raises ShardError naming file and cause (disk full, no permission); the temporary is removed.
    """
    if isinstance(path, RemotePath):
        return path.write_bytes(content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ShardError(f"{path}: cannot be written ({printable(error)}); make room or access, run again") from error


def commit_json(path: AnyPath, tree: Any) -> None:
    """Commit a tree as JSON; equal trees give equal bytes."""
    commit(path, json_bytes(tree))


def json_bytes(tree: Any) -> bytes:
    """JSON with sorted keys and no spaces."""
    return (json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n").encode()


def clean_unfinished(folder: str | os.PathLike[str] | RemotePath) -> list[str]:
    """Remove the temporaries that killed writers left in a folder; returns their names. A URL has none."""
    path = path_of(folder)
    leftovers = [] if isinstance(path, RemotePath) else sorted(path.glob(f"*{UNFINISHED}*"))
    for leftover in leftovers:
        try:
            leftover.unlink(missing_ok=True)
        except OSError as error:
            raise ShardError(f"{leftover}: cannot be removed ({printable(error)})") from error
    return [leftover.name for leftover in leftovers]


def _umask() -> int:
    """The bits that new files of this process lack. os.umask would change them for all threads to read them."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o077


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
