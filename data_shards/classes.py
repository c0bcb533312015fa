"""Class names in id order, and how labels find them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from amn_dist.errors import PLACE, ShardError, printable, quoted
from amn_dist.shards.index import MAX_CLASSES, check_names
from data_shards.source import lines_of, read_text

BACKGROUND = "background"

VOC = (
    BACKGROUND,
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The 21 classes of PASCAL VOC, in id order."""


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names from a file, one a line in id order, background first; blank lines do not count."""
    names = tuple(line.strip() for line in lines_of(read_text(path)) if line.strip())
    return check_classes(names, where=str(path))


def check_classes(names: Sequence[str], *, where: str) -> tuple[str, ...]:
    """Return the names. Raises ShardError unless they are 2 to 255, different, and start with background."""
    if not names or not _is_background(names[0]):
        first = printable(names[0], 80) if names else "nothing"
        raise ShardError(
            f"{where}: found {quoted(first)} first, expected {BACKGROUND!r} (id 0), then the classes in id order"
        )
    if not 2 <= len(names) <= MAX_CLASSES:
        raise ShardError(f"{where}: found {len(names)} classes, expected 2 to {MAX_CLASSES} with {BACKGROUND}")
    unprintable = next((name for name in names if not name.isprintable()), None)
    if unprintable is not None:
        raise ShardError(f"{where}: found the class {quoted(unprintable)}, expected printable characters")
    repeated = next((name for name in names[1:] if _is_background(name)), None)
    if repeated is not None:
        raise ShardError(f"{where}: class {quoted(repeated)} is listed twice; it is id 0 alone")
    try:
        check_names(names)
    except ShardError as error:
        raise ShardError(f"{where}: {printable(error, PLACE)}") from error
    return tuple(names)


def _is_background(name: str) -> bool:
    return name.strip("_").lower() == BACKGROUND


def multi_hot(labels: Iterable[str], classes: Sequence[str]) -> np.ndarray:
    """Tags uint8[C-1] of some labels. Raises ShardError for an unknown one, with the nearest name."""
    tags = np.zeros(len(classes) - 1, np.uint8)
    for label in labels:
        if label not in classes[1:]:
            similar = difflib.get_close_matches(label, classes[1:], n=1, cutoff=0.4)
            hint = f"did you mean {quoted(similar[0])}?" if similar else f"known: {printable(', '.join(classes[1:12]))}"
            raise ShardError(f"unknown class {quoted(label)} ({hint})")
        tags[classes.index(label) - 1] = 1
    return tags
