"""Remote files on a local disk: bounded, shared by all processes of a machine, named by their digests.

A file is there whole or not at all, so that a killed process leaves nothing that another would take for it. Locks are
the kernel's and end with their process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from amn_dist.errors import ShardError
from amn_dist.variables import number

CACHE, CACHE_GB = "AMN_CACHE", "AMN_CACHE_GB"
"""Variables: folder of the cache (none without it) and its bound, 10^9 bytes (100 without it)."""
WHOLE, PART = ".tar", ".part"
"""Endings of files here, and of those that are being fetched."""


class ListedFile(Protocol):
    """What is known of a file before it is read, such as a line of a set's index."""

    @property
    def name(self) -> str: ...

    @property
    def bytes(self) -> int: ...

    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True)
class Cache:
    """A folder of files. limit: bytes of all of them."""

    folder: Path
    limit: int

    def open(self, listed: ListedFile, pieces: Iterable[bytes], *, where: str) -> int | None:
        """A descriptor of the file's bytes, which are fetched and checked when they are not here.

        None when it does not fit, by the bound or on the disk. Raises ShardError when the bytes fetched are not those
        the index lists.
        """
        path = self.folder / f"{listed.sha256}{WHOLE}"
        try:
            if (handle := _opened(path)) is not None:
                return handle
            if listed.bytes > self.limit:
                return None
            self.folder.mkdir(parents=True, exist_ok=True)
            return self._fetch(path, listed, pieces, where)
        except OSError:  # a cache that is full or may not be written is no reason to stop
            return None

    def _fetch(self, path: Path, listed: ListedFile, pieces: Iterable[bytes], where: str) -> int | None:
        # Not atomic_file: the unfinished file is also the lock of all processes that want these bytes, so that one
        # fetches them and the others wait; its name is therefore the same for all.
        part = path.with_suffix(PART)
        with open(part, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if (handle := _opened(path)) is not None or not _is_same_file(part, file.fileno()):
                return handle  # another process was here, while this one waited
            try:
                file.truncate(0)
                self.make_room(listed.bytes)
                digest = hashlib.sha256()
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                if digest.hexdigest() != listed.sha256:
                    raise ShardError(
                        f"{where}: its bytes are not those the index lists (sha256 {digest.hexdigest()[:12]}..., "
                        f"expected {listed.sha256[:12]}...); it was changed or damaged; run amn verify"
                    )
                os.replace(part, path)
            except BaseException:
                with suppress(OSError):
                    file.truncate(0)
                    part.unlink(missing_ok=True)
                raise
        return _opened(path)

    def make_room(self, size: int) -> None:
        """Remove the files that were not used for longest until `size` bytes fit."""
        by_age = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                status = path.stat()
                by_age.append((status.st_mtime_ns, status.st_size, path))
        total = sum(taken for _, taken, _ in by_age) + size
        for _, taken, path in sorted(by_age):
            if total <= self.limit:
                return
            if path.suffix == WHOLE or _abandoned(path):
                path.unlink(missing_ok=True)
                total -= taken


def cache_here() -> Cache | None:
    """The cache that the variables name."""
    folder = os.environ.get(CACHE)
    if not folder:
        return None
    return Cache(Path(folder), int(number(CACHE_GB, 100, most=1e9) * 1e9))


def _opened(path: Path) -> int | None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with suppress(OSError):
        os.utime(path)  # the order of use
    return handle


def _is_same_file(path: Path, handle: int) -> bool:
    """Whether a path still names an open file: a renamed one may be in use, and must not be written to."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _abandoned(part: Path) -> bool:
    """Whether nobody is writing an unfinished file."""
    try:
        with open(part, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
