"""Ranges of files in a folder: on this machine by pread, elsewhere through fsspec."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import fsspec

from amn_dist.errors import ShardError

OPEN_FILES = 64
"""Tars a process keeps open."""


class Store(Protocol):
    """A folder of immutable files. Every method may be called from several threads."""

    url: str

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
    if "://" not in url:
        return LocalStore(Path(url).absolute())
    try:
        system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ShardError(f"{url}: {error}; install the fsspec package of that protocol") from error
    return LocalStore(Path(root)) if url.startswith(("file://", "local://")) else RemoteStore(url, system, root)


class LocalStore:
    """Files of a mounted folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)
        self._handle: Callable[[str], _Handle] = lru_cache(OPEN_FILES)(lambda name: _Handle(folder / name))

    def sizes(self) -> dict[str, int]:
        with os.scandir(self.folder) as found:
            return {file.name: file.stat().st_size for file in found if file.is_file()}

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        handle = self._handle(name)
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(handle.number, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)


class RemoteStore:
    """Files behind an fsspec URL."""

    def __init__(self, url: str, system: Any, root: str) -> None:
        self.url = url.rstrip("/")
        self.system = system
        self.root = root.rstrip("/")

    def sizes(self) -> dict[str, int]:
        found = self.system.ls(self.root, detail=True)
        return {entry["name"].rsplit("/", 1)[-1]: int(entry["size"]) for entry in found if entry["type"] == "file"}

    def read(self, name: str) -> bytes:
        return bytes(self.system.cat_file(f"{self.root}/{name}"))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        return bytes(self.system.cat_file(f"{self.root}/{name}", start=offset, end=offset + size))


class _Handle:
    """A file descriptor that closes when the last thread lets go of it."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
