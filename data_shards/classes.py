"""Class names in id order, and how labels find them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from amn_dist.errors import PLACE, ShardError, listed, printable, quoted
from amn_dist.shards.index import MAX_CLASSES, check_names
from amn_dist.shards.names import spelling
from data_shards.source import lines_of, read_text

BACKGROUND = "background"

VOC = (
    BACKGROUND,
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The 21 classes of PASCAL VOC, in id order."""
NO_CLASS = {"nan", "none", "null", "n/a", "na", "<na>", "undefined", "-", "?", "void", "ignore", "__ignore__", "255"}
"""What empty cells and pixels without truth are called; not the names of classes."""
LIST_SIGNS = set('[]{}",|;')
"""What stands around and between labels that were not taken apart."""
SHOWN = 8
"""Names a message quotes."""


def read_classes(path: Path, *, accept: bool = False) -> tuple[str, ...]:
    """Class names from a file, one a line in id order, background first; blank lines do not count. accept: take names
    that look like mistakes."""
    names = tuple(line.strip() for line in lines_of(read_text(path)) if line.strip())
    return check_classes(names, where=str(path), accept=accept)


def check_classes(names: Sequence[str], *, where: str, accept: bool = False) -> tuple[str, ...]:
    """Return the names. Raises ShardError unless they are 2 to 255, different, and start with background; without
    accept also when one looks like a mistake."""
    if not names or not is_background(names[0]):
        first = printable(names[0], 80) if names else "nothing"
        raise ShardError(
            f"{where}: found {quoted(first)} first, expected {BACKGROUND!r} (id 0), then the classes in id order"
        )
    if not 2 <= len(names) <= MAX_CLASSES:
        raise ShardError(f"{where}: found {len(names)} classes, expected 2 to {MAX_CLASSES} with {BACKGROUND}")
    unprintable = next((name for name in names if not name.isprintable()), None)
    if unprintable is not None:
        raise ShardError(f"{where}: found the class {quoted(unprintable)}, expected printable characters")
    repeated = next((name for name in names[1:] if is_background(name)), None)
    if repeated is not None:
        raise ShardError(f"{where}: class {quoted(repeated)} is listed twice; it is id 0 alone")
    try:
        check_names(names)
    except ShardError as error:
        raise ShardError(f"{where}: {printable(error, PLACE)}") from error
    faults = [] if accept else list(mistakes(names[1:]))
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ShardError(
            f"{where}: {listed(faults[:SHOWN], PLACE)}{more}; mend the labels, list the classes that are meant with "
            "--classes FILE, or take them as they are with --accept-names"
        )
    return tuple(names)


def is_background(name: str) -> bool:
    """Whether a name is one of background's, which is id 0 of every set and no class."""
    return spelling(name).strip("_").lower() == BACKGROUND


def mistakes(names: Sequence[str]) -> Iterator[str]:
    """What looks like a mistake in class names."""
    first: dict[str, str] = {}
    for name in names:
        plain = spelling(name).casefold()
        if plain in first:
            yield f"classes {quoted(first[plain])} and {quoted(name)} differ in case alone"
        elif plain in NO_CLASS:
            yield f"class {quoted(name)} reads like no label at all"
        elif set(name) & LIST_SIGNS or name[0] in "'`" or name[-1] in "'`" or name != name.strip():
            yield f"class {quoted(name)} reads like several labels, or a list that was not taken apart"
        first.setdefault(plain, name)


def multi_hot(labels: Iterable[str], classes: Sequence[str]) -> np.ndarray:
    """Tags uint8[C-1] of some labels. Raises ShardError for an unknown one, with the nearest name."""
    tags = np.zeros(len(classes) - 1, np.uint8)
    number_of = {spelling(name): number for number, name in enumerate(classes[1:])}
    for label in labels:
        if (number := number_of.get(spelling(label))) is None:
            similar = difflib.get_close_matches(label, classes[1:], n=1, cutoff=0.4)
            hint = f"did you mean {quoted(similar[0])}?" if similar else f"known: {printable(', '.join(classes[1:12]))}"
            raise ShardError(f"unknown class {quoted(label)} ({hint})")
        tags[number] = 1
    return tags
