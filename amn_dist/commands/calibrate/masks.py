"""Masks that somebody drew for a few images of a set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amn_dist.errors import PLACE, ConfigError, ShardError, listed, printable
from amn_dist.records import IGNORE
from amn_dist.shards.shardset import ShardSet
from data_shards.photo import Photo, check_truth
from data_shards.source import named, read_file


@dataclass(frozen=True)
class DrawnMask:
    """A mask uint8[H, W] of class ids, 255 void, of the image at an ordinal. name: of its file."""

    name: str
    ordinal: int
    labels: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """The classes that it holds, background and void left out."""
        present = np.unique(self.labels)
        return present[(present != 0) & (present != IGNORE)]


def read_masks(folder: Path, images: ShardSet) -> list[DrawnMask]:
    """The masks of a folder, NAME.png under the photographs' names or the keys of the set, by ordinal.

    They are what `amn pack` takes for truth: gray or palette PNGs of the photograph's size. Raises ConfigError where
    there is none, ShardError naming every file that cannot be used.
    """
    masks: list[DrawnMask] = []
    faults: list[str] = []
    for path in mask_files(folder):
        try:
            masks.append(read_mask(path, images))
        except ShardError as error:
            faults.append(str(error))
    faults += repeated(masks, images)
    if faults:
        raise ShardError(listed(faults))
    return sorted(masks, key=lambda mask: mask.ordinal)


def mask_files(folder: Path) -> list[Path]:
    """The PNGs of a folder, in order of their names."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise ConfigError(f"--masks {folder}: {printable(error).lower()}; expected a folder of PNGs") from error
    pictures = [folder / name for name in names if name.lower().endswith(".png")]
    if not pictures:
        raise ConfigError(f"--masks {folder}: holds {len(names)} files and no .png, expected a mask an image, NAME.png")
    return pictures


def read_mask(path: Path, images: ShardSet) -> DrawnMask:
    """A mask, and the image it is of. Raises ShardError with the file's name."""
    with named(path.name):
        entry = images.entry(images.find(path.stem))
        content = read_file(path, path.name)
        labels = check_truth(content, Photo("png", entry.height, entry.width), len(images.classes))
    return DrawnMask(path.name, entry.ordinal, labels)


def repeated(masks: Sequence[DrawnMask], images: ShardSet) -> Iterator[str]:
    """A fault for every second mask of one image."""
    first: dict[int, str] = {}
    for mask in masks:
        other = first.setdefault(mask.ordinal, mask.name)
        if other != mask.name:
            key = images.entry(mask.ordinal).key
            yield f"{printable(mask.name, PLACE)}: a second mask of {key} beside {printable(other, PLACE)}; keep one"


def untagged(mask: DrawnMask, images: ShardSet) -> list[str]:
    """Names of classes that a mask holds and the tags of its image do not."""
    tags = np.flatnonzero(images.load(mask.ordinal, "tags")) + 1
    return [printable(images.classes[label]) for label in mask.classes if label not in tags]
