"""Ranges of files in a folder: on this machine by pread, elsewhere with read-ahead and, if asked for, a local cache."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from amn_dist.storage.cache import ListedFile, cache_here
from amn_dist.storage.paths import RemotePath, path_of
from amn_dist.storage.readahead import ReadAhead

OPEN_FILES = 64
"""Files a process keeps open."""
OPEN_CACHED = 12
"""Cached files a process keeps open; what is open takes room on the disk even after it was evicted."""


class RangeReader(Protocol):
    """A folder of immutable files. Every method may be called from several threads."""

    url: str

    def expect(self, files: Sequence[ListedFile]) -> None:
        """Say which files will be read by range, in their order."""
        ...

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by name."""
        ...

    def read(self, name: str) -> bytes:
        """A whole file."""
        ...

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on; fewer where the file ends."""
        ...


def open_ranges(url: str) -> RangeReader:
    """The folder behind a path or URL. Raises ShardError when its protocol is unknown or lacks a package."""
    folder = path_of(url)
    return RemoteRangeReader(folder) if isinstance(folder, RemotePath) else LocalRangeReader(folder.absolute())


class LocalRangeReader:
    """Files of a mounted folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)
        self._handle: Callable[[str], _Handle] = lru_cache(OPEN_FILES)(lambda name: _Handle(_opened(folder / name)))

    def expect(self, files: Sequence[ListedFile]) -> None:
        """Nothing: the kernel reads ahead."""

    def sizes(self) -> dict[str, int]:
        with os.scandir(self.folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        return self._handle(name).read(offset, size)


class RemoteRangeReader:
    """Files behind a URL. With a cache, a file comes whole on its first use, and the next one behind it."""

    def __init__(self, folder: RemotePath) -> None:
        self.folder = folder
        self.url = str(folder)
        self._listed: dict[str, ListedFile] = {}
        self._next: dict[str, str] = {}
        self._used: set[str] = set()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._ahead = ReadAhead(lambda name, offset, size: (folder / name).read_range(offset, size))
        self._cache = cache_here()
        self._handle: Callable[[str], _Handle | None] = lru_cache(OPEN_CACHED)(self._fetch)

    def expect(self, files: Sequence[ListedFile]) -> None:
        self._listed = {file.name: file for file in files}
        self._next = {file.name: after.name for file, after in pairwise(files)}
        self._ahead.expect([(file.name, file.bytes) for file in files])

    def sizes(self) -> dict[str, int]:
        return self.folder.children()[0]

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        if self._cache is None or name not in self._listed:
            return self._ahead.read(name, offset, size)
        handle = self._cached(name)
        if name not in self._used:
            self._used.add(name)
            if (after := self._next.get(name)) is not None and after not in self._used:
                threading.Thread(target=self._cached, args=(after,), daemon=True).start()
        return self._ahead.read(name, offset, size) if handle is None else handle.read(offset, size)

    def _cached(self, name: str) -> _Handle | None:
        with self._locks[name]:
            return self._handle(name)

    def _fetch(self, name: str) -> _Handle | None:
        assert self._cache is not None
        listed, path = self._listed[name], self.folder / name
        descriptor = self._cache.open(listed, path.pieces(listed.bytes), where=str(path))
        return None if descriptor is None else _Handle(descriptor)


class _Handle:
    """A file descriptor that closes when the last thread lets go of it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(self.descriptor, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def __del__(self) -> None:
        os.close(self.descriptor)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY)
