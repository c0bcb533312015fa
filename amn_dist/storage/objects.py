"""Storage of objects behind a URL: S3, Google and Azure through one client, every other protocol through fsspec."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import fsspec

from amn_dist.errors import ShardError, printable
from amn_dist.storage.providers import provider_of


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

    def copy(self, key: str, other: str) -> None:
        """Make `other` a copy of an object without its bytes leaving the storage. Raises NotImplementedError."""
        ...

    def tagged(self, key: str) -> tuple[bytes, str]:
        """An object, and a tag that tells this version of it from all others."""
        ...

    def swap(self, key: str, content: bytes, tag: str | None) -> str | None:
        """Put if the object is still the version of a tag (None: if there is none). Returns the tag of the new version,
        None when it was another one."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object. May raise FileNotFoundError."""
        ...


class FsspecObjects:
    """Any fsspec file system."""

    def __init__(self, system: Any) -> None:
        self._system = system

    def children(self, key: str) -> tuple[dict[str, int], list[str]]:
        try:
            listing = self._system.ls(key, detail=True, refresh=True)
        except FileNotFoundError:
            return {}, []
        entries = [(entry["name"].rstrip("/").rsplit("/", 1)[-1], entry) for entry in listing]
        files = {name: int(entry["size"]) for name, entry in entries if entry["type"] == "file"}
        return files, [name for name, entry in entries if entry["type"] == "directory"]

    def size(self, key: str) -> int:
        entry = self._system.info(key)
        if entry["type"] != "file":
            raise FileNotFoundError(key)
        return int(entry["size"])

    def get(self, key: str) -> bytes:
        return bytes(self._system.cat_file(key))

    def get_range(self, key: str, start: int, size: int) -> bytes:
        return bytes(self._system.cat_file(key, start=start, end=start + size))

    def put(self, key: str, content: bytes | memoryview) -> None:
        self._system.pipe_file(key, bytes(content))

    def copy(self, key: str, other: str) -> None:
        self._system.cp_file(key, other)

    def tagged(self, key: str) -> tuple[bytes, str]:
        content = self.get(key)
        return content, hashlib.sha256(content).hexdigest()

    def swap(self, key: str, content: bytes, tag: str | None) -> str | None:
        # Not in one request where there is a version already: fsspec has no word for that.
        try:
            if tag is not None and self.tagged(key)[1] != tag:
                return None
            self._system.pipe_file(key, content, mode="create" if tag is None else "overwrite")
        except (FileExistsError, FileNotFoundError):
            return None
        return hashlib.sha256(content).hexdigest()

    def delete(self, key: str) -> None:
        if self._system.exists(key):  # some file systems pass over what is not there, others raise this or that
            self._system.rm_file(key)


def open_objects(url: str) -> tuple[Objects, str]:
    """The storage behind a URL and the key the URL means there. Raises ShardError for an unknown protocol."""
    provider = provider_of(url)
    if provider is not None:
        from amn_dist.storage.buckets import open_bucket

        return open_bucket(url, provider)
    try:
        system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ShardError(f"{url}: {printable(error)}; install the fsspec package of that protocol") from error
    return FsspecObjects(system), root.rstrip("/")
