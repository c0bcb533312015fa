"""VOC's lists of images: an id a line, or the two columns that other code writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from amn_dist.errors import ShardError, printable, quoted
from amn_dist.shards.names import holdable
from data_shards.source import check_split, lines_of, read_text

IMAGES = "JPEGImages"
FOLDERS = ("Segmentation", "Main")
"""Folders of ImageSets that a list is looked for in; the first that has it."""
MARKS = ("-1", "0", "1")
"""What lists of one class put behind an id: not there, difficult, there."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A line. name: of the image, perhaps with its ending. mask: FOLDER/NAME.png where the line says it."""

    name: str
    mask: str = ""


def read_split(root: Path, split: str) -> tuple[Listed, ...]:
    """The images of a split, in the file's order; blank lines do not count.

    A line is an id; an id and -1, 0 or 1, which are not read; the path of an image; or the paths of image and mask,
    such as `/JPEGImages/a.jpg /SegmentationClassAug/a.png`. All lines are of one kind. Raises ShardError naming file,
    line and id.
    """
    path = _find(root, split)
    lines: dict[str, int] = {}
    listed = []
    read: Callable[[list[str]], Listed | None] | None = None
    for number, line in enumerate(lines_of(read_text(path)), 1):
        columns = [column for column in line.strip().replace("\t", " ").split(" ") if column]
        if not columns:
            continue
        read = read or _kind(columns)
        row = read(columns)
        if row is None:
            raise ShardError(
                f"{path}: line {number}: found {quoted(line.strip())}, expected one id, a file name in {IMAGES}"
                f"{', as in the lines before' if read is not _id else ''}"
            )
        if row.name in lines:
            raise ShardError(
                f"{path}: line {number}: id {quoted(row.name)} is a duplicate of line {lines[row.name]}; list it once"
            )
        lines[row.name] = number
        listed.append(row)
    if not listed:
        raise ShardError(f"{path}: lists no ids; expected one a line")
    return tuple(listed)


def _find(root: Path, split: str) -> Path:
    check_split(split, "a file in ImageSets/Segmentation, such as train")
    paths = [root / "ImageSets" / folder / f"{split}.txt" for folder in FOLDERS]
    for path in paths:
        if os.path.isfile(path):
            return path
    present = {file.stem for path in paths for file in path.parent.glob("*.txt")}
    raise ShardError(f"{paths[0]}: no such split; found {printable(', '.join(sorted(present)) or 'none')}")


def _kind(columns: list[str]) -> Callable[[list[str]], Listed | None]:
    """How lines like this first one are read."""
    if "/" in columns[0]:
        return _path if len(columns) == 1 else _pair
    return _marked if len(columns) == 2 and columns[1] in MARKS else _id


def _id(columns: list[str]) -> Listed | None:
    return Listed(columns[0]) if len(columns) == 1 and _plain(columns[0]) else None


def _marked(columns: list[str]) -> Listed | None:
    return _id(columns[:1]) if len(columns) == 2 and columns[1] in MARKS else None


def _path(columns: list[str]) -> Listed | None:
    """The path of an image in JPEGImages, below whatever folders."""
    *folders, name = columns[0].split("/")
    inside = bool(folders) and folders[-1] == IMAGES and len(columns) == 1
    return Listed(PurePosixPath(name).stem) if inside and _plain(name) and PurePosixPath(name).suffix else None


def _pair(columns: list[str]) -> Listed | None:
    if len(columns) != 2 or (image := _path(columns[:1])) is None:
        return None
    *folders, name = columns[1].split("/")
    fits = bool(folders) and _plain(folders[-1]) and _plain(name) and name.lower().endswith(".png")
    return Listed(image.name, f"{folders[-1]}/{name}") if fits else None


def _plain(name: str) -> bool:
    """Whether a name is that of a file in a folder."""
    slashes = "/" in name or "\\" in name
    return not slashes and not name.startswith(".") and name.isprintable() and len(name.split()) == 1 and holdable(name)
