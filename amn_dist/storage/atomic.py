"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from amn_dist.errors import ShardError, printable
from amn_dist.storage.paths import AnyPath, RemotePath, path_of

MARK = ".tmp-"
"""What the name of an unfinished file contains."""


def commit(path: AnyPath, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to the disk, then give it its name; behind a URL in one request.

    Raises ShardError naming file and cause (disk full, no permission); the temporary is removed.
    """
    if isinstance(path, RemotePath):
        return path.write_bytes(content)
    temporary = path.with_name(f"{path.name}{MARK}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise ShardError(f"{path}: cannot be written ({printable(error)}); make room or access, run again") from error
    finally:
        # After a failure the cause matters, not that its leftover could not be removed as well.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def commit_json(path: AnyPath, tree: Any) -> None:
    """Commit a tree as JSON; equal trees give equal bytes."""
    commit(path, json_bytes(tree))


def json_bytes(tree: Any) -> bytes:
    """JSON with sorted keys and no spaces."""
    return (json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n").encode()


def clean_unfinished(folder: str | os.PathLike[str] | RemotePath) -> list[str]:
    """Remove the temporaries that killed writers left in a folder; returns their names. A URL has none."""
    where = path_of(folder)
    found = [] if isinstance(where, RemotePath) else sorted(where.glob(f"*{MARK}*"))
    for path in found:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ShardError(f"{path}: cannot be removed ({printable(error)})") from error
    return [path.name for path in found]


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
