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

from amn_dist.shards.cache import cache_here
from amn_dist.shards.index import ShardInfo
from amn_dist.storage.paths import RemotePath, path_of
from amn_dist.storage.readahead import ReadAhead

OPEN_FILES = 64
"""Tars a process keeps open."""
OPEN_CACHED = 12
"""Cached tars a process keeps open; what is open takes room on the disk even after it was evicted."""


class Store(Protocol):
    """A folder of immutable files. Every method may be called from several threads."""

    url: str

    def expect(self, shards: Sequence[ShardInfo]) -> None:
        """Say which tars will be read, in their order."""
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


def open_store(url: str) -> Store:
    """The folder behind a path or URL. Raises ShardError when its protocol is unknown or lacks a package."""
    found = path_of(url)
    return RemoteStore(found) if isinstance(found, RemotePath) else LocalStore(found.absolute())


class LocalStore:
    """Files of a mounted folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)
        self._handle: Callable[[str], _Handle] = lru_cache(OPEN_FILES)(lambda name: _Handle(_opened(folder / name)))

    def expect(self, shards: Sequence[ShardInfo]) -> None:
        """Nothing: the kernel reads ahead."""

    def sizes(self) -> dict[str, int]:
        with os.scandir(self.folder) as found:
            return {file.name: file.stat().st_size for file in found if file.is_file()}

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        return self._handle(name).read(offset, size)


class RemoteStore:
    """Files behind a URL. With a cache, a tar comes whole on its first use, and the next one behind it."""

    def __init__(self, folder: RemotePath) -> None:
        self.folder = folder
        self.url = str(folder)
        self._shards: dict[str, ShardInfo] = {}
        self._next: dict[str, str] = {}
        self._used: set[str] = set()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._ahead = ReadAhead(lambda name, offset, size: (folder / name).read_range(offset, size))
        self._cache = cache_here()
        self._handle: Callable[[str], _Handle | None] = lru_cache(OPEN_CACHED)(self._fetched)

    def expect(self, shards: Sequence[ShardInfo]) -> None:
        self._shards = {shard.name: shard for shard in shards}
        self._next = {shard.name: after.name for shard, after in pairwise(shards)}
        self._ahead.expect([(shard.name, shard.bytes) for shard in shards])

    def sizes(self) -> dict[str, int]:
        return self.folder.children()[0]

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        if self._cache is None or name not in self._shards:
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

    def _fetched(self, name: str) -> _Handle | None:
        assert self._cache is not None
        shard, path = self._shards[name], self.folder / name
        number = self._cache.open(shard, path.pieces(shard.bytes), where=str(path))
        return None if number is None else _Handle(number)


class _Handle:
    """A file descriptor that closes when the last thread lets go of it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(self.number, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def __del__(self) -> None:
        os.close(self.number)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY)
