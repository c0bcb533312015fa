"""Places of files: a path of this machine, or a URL with as much of pathlib as the package uses."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from amn_dist.errors import ConfigError, printable
from amn_dist.storage.objects import Objects, open_objects
from amn_dist.storage.retry import ShortBody, retried

T = TypeVar("T")

PIECE = 16 * 2**20
"""Bytes of one request for a part of a large object."""


@dataclass(frozen=True, order=True)
class RemotePath:
    """A URL as a path. Folders exist as far as there are files below them; files are immutable and whole.

    Every method waits for a storage that fails for a while; what it raises is FileNotFoundError or a ShardError with
    URL, answer and advice.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        return self.name.rsplit(".", 1)[0]

    @property
    def parent(self) -> RemotePath:
        """The folder it lies in; of the root of a storage itself."""
        protocol, _, rest = self.url.partition("://")
        return RemotePath(f"{protocol}://{rest.rpartition('/')[0] or rest}")

    def with_suffix(self, suffix: str) -> RemotePath:
        return self.parent / f"{self.stem}{suffix}"

    def absolute(self) -> RemotePath:
        return self

    def resolve(self) -> RemotePath:
        return self

    def is_file(self) -> bool:
        try:
            self.size()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        files, folders = self.children()
        return bool(files or folders)

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def size(self) -> int:
        """Bytes of the file."""
        return self._ask("read", lambda objects, key: objects.size(key))

    def children(self) -> tuple[dict[str, int], list[str]]:
        """Files (bytes by name) and folders in this folder, in no order."""
        return self._ask("listed", lambda objects, key: objects.children(key))

    def iterdir(self) -> Iterator[RemotePath]:
        files, folders = self.children()
        return (self / name for name in sorted({*files, *folders}))

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        return (path for path in self.iterdir() if fnmatch(path.name, pattern))

    def read_bytes(self) -> bytes:
        return self._ask("read", lambda objects, key: objects.get(key))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def read_range(self, offset: int, size: int) -> bytes:
        """Exactly these bytes. Raises ShardError when the file ends before them."""

        def request(objects: Objects, key: str) -> bytes:
            content = objects.get_range(key, offset, size)
            if len(content) != size:
                raise ShortBody(f"found {len(content)} bytes, expected {size}")
            return content

        return self._ask("read", request) if size else b""

    def pieces(self, size: int) -> Iterator[bytes]:
        """The whole file, of so many bytes, piece by piece."""
        for offset in range(0, size, PIECE):
            yield self.read_range(offset, min(PIECE, size - offset))

    def write_bytes(self, content: bytes | memoryview) -> None:
        """Replace the file in one request: readers see the old one or the new one."""
        self._ask("written", lambda objects, key: objects.put(key, content))

    def touch(self) -> None:
        """Write an empty file."""
        self.write_bytes(b"")

    def copy_to(self, other: RemotePath) -> None:
        """Make `other`, in the same storage, a copy: inside the storage where it can do that."""
        target = open_objects(other.url)[1]
        try:
            self._ask("copied", lambda objects, key: objects.copy(key, target))
        except NotImplementedError:
            other.write_bytes(self.read_bytes())

    def tagged(self) -> tuple[bytes, str] | None:
        """The file and the tag of this version of it; None where there is none."""
        try:
            return self._ask("read", lambda objects, key: objects.tagged(key))
        except FileNotFoundError:
            return None

    def swap(self, content: bytes, tag: str | None) -> str | None:
        """Write if the file is still the version of a tag (None: if there is none).

        Returns the tag of the new version, None when somebody else was faster. content: unlike all other versions.
        """
        new = self._ask("written", lambda objects, key: objects.swap(key, content, tag))
        if new is not None:
            return new
        present = self.tagged()  # the first try may have been carried out without an answer
        return present[1] if present is not None and present[0] == content else None

    def unlink(self, missing_ok: bool = True) -> None:
        """Remove the file, if it is there: not every storage says whether it was."""
        with suppress(FileNotFoundError):
            self._ask("removed", lambda objects, key: objects.delete(key))

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing: folders need not be made."""

    def rmdir(self) -> None:
        """Nothing: an empty folder is not there."""

    def _ask(self, verb: str, request: Callable[[Objects, str], T]) -> T:
        objects, key = open_objects(self.url)
        return retried(self.url, verb, lambda: request(objects, key))


AnyPath = Path | RemotePath
"""Where a file or folder is."""

LONGEST = 4095
"""Bytes of a path at most."""
LONE = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")
"""Halves of surrogate pairs but for those by which Python spells the bytes of a file's name that are no UTF-8."""


def path_of(path_or_url: str | os.PathLike[str] | RemotePath) -> AnyPath:
    """The place a path or URL means; file:// is a path. Raises ConfigError for a text that no path can hold."""
    if isinstance(path_or_url, RemotePath):
        return path_or_url
    text = os.fspath(path_or_url)
    if "\0" in text or LONE.search(text):
        raise ConfigError(f"{printable(text)}: holds a character that no path can, expected a path or URL")
    if text.startswith(("file://", "local://")):
        return Path(text.split("://", 1)[1])
    if "://" in text:
        return RemotePath(text.rstrip("/"))
    if len(os.fsencode(text)) > LONGEST:
        raise ConfigError(f"{printable(text)}: too long for a path, expected at most {LONGEST} bytes")
    return Path(text)


def is_file(path: AnyPath) -> bool:
    """Whether there is a file; a name that is too long for the file system is that of none.

    Raises ConfigError where permissions keep this user from knowing.
    """
    if isinstance(path, RemotePath):
        return path.is_file()
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError as error:
        raise ConfigError(f"{path}: permission denied; ask the owner to let you read it") from error
    except (OSError, ValueError):
        return False
