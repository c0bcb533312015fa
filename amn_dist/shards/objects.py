"""Storage of objects behind a URL: S3 through its own client, every other protocol through fsspec."""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import urlsplit

import fsspec

from amn_dist.errors import ShardError


class Objects(Protocol):
    """Objects by key. A call is one request; what it raises is the library's own. Every object is whole or absent."""

    def children(self, key: str) -> tuple[dict[str, int], list[str]]:
        """Files (bytes by name) and folders right below a key; none where there is nothing."""
        ...

    def size(self, key: str) -> int:
        """Bytes of an object. Raises FileNotFoundError."""
        ...

    def get(self, key: str) -> bytes: ...

    def get_range(self, key: str, start: int, size: int) -> bytes:
        """At most `size` bytes from `start` on; fewer where the object ends."""
        ...

    def put(self, key: str, content: bytes | memoryview) -> None: ...

    def delete(self, key: str) -> None: ...


class FsspecObjects:
    """Any fsspec file system."""

    def __init__(self, system: Any) -> None:
        self._system = system

    def children(self, key: str) -> tuple[dict[str, int], list[str]]:
        try:
            found = self._system.ls(key, detail=True, refresh=True)
        except FileNotFoundError:
            return {}, []
        named = [(entry["name"].rstrip("/").rsplit("/", 1)[-1], entry) for entry in found]
        files = {name: int(entry["size"]) for name, entry in named if entry["type"] == "file"}
        return files, [name for name, entry in named if entry["type"] == "directory"]

    def size(self, key: str) -> int:
        found = self._system.info(key)
        if found["type"] != "file":
            raise FileNotFoundError(key)
        return int(found["size"])

    def get(self, key: str) -> bytes:
        return bytes(self._system.cat_file(key))

    def get_range(self, key: str, start: int, size: int) -> bytes:
        return bytes(self._system.cat_file(key, start=start, end=start + size))

    def put(self, key: str, content: bytes | memoryview) -> None:
        self._system.pipe_file(key, bytes(content))

    def delete(self, key: str) -> None:
        if self._system.exists(key):
            self._system.rm_file(key)


def open_objects(url: str) -> tuple[Objects, str]:
    """The storage behind a URL and the key the URL means there. Raises ShardError for an unknown protocol."""
    if url.startswith("s3://"):
        from amn_dist.shards.s3 import s3_bucket

        parts = urlsplit(url)
        if not parts.netloc:
            raise ShardError(f"{url}: names no bucket; expected s3://BUCKET/FOLDER")
        return s3_bucket(parts.netloc), parts.path.strip("/")
    try:
        system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ShardError(f"{url}: {error}; install the fsspec package of that protocol") from error
    return FsspecObjects(system), root.rstrip("/")
