"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
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
    name; without it a machine that loses power may leave an empty file. After an error the temporary is removed.
    """
    temporary = temporary or path.with_name(f"{path.name}{UNFINISHED}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield temporary
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


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
