"""What a packer is handed: samples that can be read one by one, and the file system behind them."""

from __future__ import annotations

import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from amn_dist.errors import PLACE, ConfigError, ShardError, printable
from amn_dist.shards.names import MAX_PART, SourceFile, holdable

MAX_FILE = 256 * 2**20
"""Bytes of any single input file."""


@dataclass(frozen=True, slots=True)
class Content:
    """A sample as read. tags: uint8[C-1] multi-hot. truth: an encoded PNG, or ids uint8[H, W]."""

    image: bytes
    tags: np.ndarray
    truth: bytes | np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class PackSource:
    """A sample to pack. name: what messages call its image. truth: what they call its mask.

    size: bytes it will take, about. stamp: changes when the sample's inputs do. read: its content; raises ShardError,
    and can be pickled, for another machine to call. file: what its report says it was made from.
    """

    key: str
    name: str
    size: int
    stamp: str
    read: Callable[[], Content]
    truth: str = ""
    file: SourceFile | None = None


def key_of(stem: str) -> str:
    """A legal key for a relative path without its extension, the same for the same path.

    Folders are joined by `_`. Where anything else must change, a hash of the path keeps different paths apart.
    """
    joined = stem.replace("/", "_")
    key = re.sub(r"[^A-Za-z0-9_-]", "_", joined)
    if key == joined and not key.startswith("-") and 0 < len(key) <= 200:
        return key
    return f"{key.lstrip('-')[:180] or '_'}-{hashlib.sha256(stem.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def check_keys(sources: list[PackSource]) -> None:
    """Raise ShardError when there is nothing to pack or two samples have one key."""
    if not sources:
        raise ShardError("no samples found; expected at least one")
    name_of: dict[str, str] = {}
    for source in sources:
        if source.key in name_of:
            raise ShardError(
                f"{printable(name_of[source.key], PLACE)} and {printable(source.name, PLACE)} both have "
                f"the key {source.key}; rename one of them"
            )
        name_of[source.key] = source.name


def check_split(split: str, expected: str) -> None:
    """Raise ConfigError unless the name of a split is that of a file or folder. expected: what it names."""
    if not split or "/" in split or "\\" in split or split.startswith(".") or not split.isprintable():
        raise ConfigError(f"split: found '{printable(split, 80)}', expected the name of {expected}")
    if not holdable(split):
        raise ConfigError(f"split: found '{printable(split, 80)}', expected a name of at most {MAX_PART} bytes")


def inside(folder: Path, name: str, *, links: bool = False, root: Path | None = None) -> Path:
    """The path of a name in a folder. Raises ShardError when a link leads outside although the name does not.

    root: of the data set, which a link may not leave either way. links: follow them wherever they lead.
    """
    path = folder / name
    if links or ("/" not in name and not path.is_symlink()):
        return path
    end = path.resolve()
    if not any(end.is_relative_to(there.resolve()) for there in (folder, root or folder)):
        raise ShardError(
            f"{printable(name, PLACE)}: leads outside of {folder}; expected files inside, or --follow-links"
        )
    return path


def on_disk(folder: Path, name: str) -> str:
    """A relative name as the folder writes it, where it is there with accents of another form (NFC, NFD)."""
    if name.isascii() or os.path.lexists(folder / name):
        return name
    parts: list[str] = []
    for part in PurePosixPath(name).parts:
        there = folder.joinpath(*parts)
        state = there.stat().st_mtime_ns if os.path.isdir(there) else 0
        parts.append(_spellings(there, state).get(unicodedata.normalize("NFC", part), part))
    return "/".join(parts)


@lru_cache(16)
def _spellings(folder: Path, state: int) -> dict[str, str]:
    """Names in a folder by their composed form. state: changes when the folder does."""
    try:
        return {unicodedata.normalize("NFC", name): name for name in sorted(os.listdir(folder))}
    except OSError:
        return {}


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put a file's name before a ShardError raised inside."""
    try:
        yield
    except ShardError as error:
        raise ShardError(f"{printable(name, PLACE)}: {error}") from error


def stamp_of(paths: list[Path]) -> tuple[int, str]:
    """Bytes of some files together, and a text that changes when one of them changes or goes."""
    total, parts = 0, []
    for path in paths:
        try:
            status = path.stat()
        except (OSError, ValueError):
            parts.append("missing")
            continue
        total += status.st_size
        parts.append(f"{status.st_size}:{status.st_mtime_ns}")
    return total, ";".join(parts)


def read_file(path: Path, name: str) -> bytes:
    """The bytes of an input file. Raises ShardError with its name."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise ShardError(f"{printable(name, PLACE)}: {size} bytes; expected at most {MAX_FILE}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ShardError(f"{printable(name, PLACE)}: not there") from error
    except (OSError, ValueError) as error:
        raise ShardError(f"{printable(name, PLACE)}: cannot be read ({printable(error)})") from error


def lines_of(text: str) -> list[str]:
    """The lines of a text, by the ends that files have; other characters of Unicode that end a line are no such end."""
    return [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]


def read_text(path: Path) -> str:
    """The text of an input file, UTF-8 with or without a mark. Raises ShardError with its path."""
    try:
        return read_file(path, str(path)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ShardError(f"{path}: not UTF-8 text ({printable(error)})") from error
