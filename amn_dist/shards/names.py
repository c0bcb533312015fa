"""Names that come from outside: of the files samples were made from, and of classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from amn_dist.errors import ShardError, quoted

MAX_PART, MAX_NAME = 250, 1024
"""Bytes of a file's name without folders and endings, which file systems hold to 255, and of a relative path."""

NUMBERED = re.compile(r"(?:.*_)?0*(\d{1,18})")
"""Keys that end in a number, such as COCO's own file names."""


class SourceFile(NamedTuple):
    """What a sample was made from. name: of its image, relative to its folder. number: its id in the source's own
    file, where that gives one."""

    name: str
    number: int | None = None


def relative(name: str) -> bool:
    """Whether a name is a relative path that stays inside its folder as written, and that file systems can hold."""
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and len(name) <= MAX_NAME and "\\" not in name and not name.startswith("/")
    return plain and bool(parts) and ".." not in parts and all(holdable(part) for part in parts)


def holdable(part: str) -> bool:
    """Whether the name of a file is short enough for file systems, with a few bytes left for another ending."""
    return len(part.encode("utf-8", "surrogateescape")) <= MAX_PART


def check_source(name: str) -> str:
    """Return the name of a source file. Raises ShardError unless it is a relative path inside its folder."""
    if not relative(name):
        raise ShardError(f"source {quoted(name, 220)}: expected a relative path inside the folder of images")
    return name


def spelling(name: str) -> str:
    """A name as people read it: accents in one character or two, any number of spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def numbers_of(keys: Iterable[str]) -> list[int]:
    """The numbers at the end of keys; empty unless every key has one of its own."""
    matches = [NUMBERED.fullmatch(key) for key in keys]
    numbers = [int(match.group(1)) for match in matches if match is not None]
    return numbers if len(set(numbers)) == len(matches) else []
