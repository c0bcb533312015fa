"""How many images are tagged with a class, and how many masks hold its id: counted while packing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from amn_dist.records import IGNORE

IDS = 256
"""Ids of 8 bits."""
EXAMPLES = 8
"""Samples named where tags and masks differ."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The classes of one sample. name: what messages call it. tags: uint8[C-1] multi-hot. held: the ids in its mask,
    ascending; None without truth."""

    name: str
    tags: np.ndarray
    held: np.ndarray | None

    @property
    def tagged(self) -> np.ndarray:
        """Ids of the tagged classes."""
        return np.flatnonzero(self.tags) + 1

    @property
    def classes(self) -> np.ndarray:
        """Ids of the classes in the mask."""
        return np.zeros(0, np.int64) if self.held is None else self.held[(self.held > 0) & (self.held != IGNORE)]

    @property
    def shown(self) -> np.ndarray:
        """Tags uint8[C-1] of the classes in the mask."""
        tags = np.zeros_like(self.tags)
        tags[self.classes - 1] = 1
        return tags


@dataclass(frozen=True, slots=True)
class Census:
    """Counts over samples. images, masks: of samples, and of those with truth. tagged: int64[C], images by class; 0:
    those without any tag. alone: int64[C], images by their only class.

    held: int64[C, 256], of the images tagged with a class, those whose mask holds an id; row 0: of all masks.
    lacking: images with a tag that their mask lacks. untagged: images with a class in their mask that is no tag.
    examples: the first of either, as (shard, place in it, name).
    """

    images: int
    masks: int
    tagged: np.ndarray
    alone: np.ndarray
    held: np.ndarray
    lacking: int = 0
    untagged: int = 0
    examples: tuple[tuple[int, int, str], ...] = ()

    def __add__(self, other: Census) -> Census:
        return Census(
            self.images + other.images,
            self.masks + other.masks,
            self.tagged + other.tagged,
            self.alone + other.alone,
            self.held + other.held,
            self.lacking + other.lacking,
            self.untagged + other.untagged,
            tuple(sorted(self.examples + other.examples)[:EXAMPLES]),
        )


def no_census(classes: int) -> Census:
    """The census of no samples. classes: C with background."""
    return Census(0, 0, np.zeros(classes, np.int64), np.zeros(classes, np.int64), np.zeros((classes, IDS), np.int64))


def take_census(samples: Iterable[Contents], classes: int, shard: int) -> Census:
    """The census of the samples of a shard. classes: C with background."""
    tagged, alone = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    held = np.zeros((classes, IDS), np.int64)
    images = masks = lacking = untagged = 0
    examples = []
    for place, sample in enumerate(samples):
        images += 1
        tagged[sample.tagged if sample.tags.any() else 0] += 1
        if sample.tagged.size == 1:
            alone[sample.tagged] += 1
        if sample.held is None:
            continue
        masks += 1
        held[np.ix_(np.append(0, sample.tagged), sample.held)] += 1
        lacks, more = np.setdiff1d(sample.tagged, sample.held).size, np.setdiff1d(sample.classes, sample.tagged).size
        lacking, untagged = lacking + bool(lacks), untagged + bool(more)
        if lacks or more:
            examples.append((shard, place, sample.name))
    return Census(images, masks, tagged, alone, held, lacking, untagged, tuple(examples[:EXAMPLES]))


def ids_in(ids: np.ndarray) -> np.ndarray:
    """The ids in a mask uint8[H, W], ascending."""
    return np.flatnonzero(Image.fromarray(ids).histogram())  # faster than bincount, which makes them 64 bits wide
