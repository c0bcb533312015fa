"""Which images are worth drawing next: those whose labels hang most on where inside the interval a threshold lies."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from amn_dist.commands.calibrate.maps import StoredMaps

LOOKED_AT = 1000
"""Images of a set that are looked at, at most; of more a sample is drawn."""


@dataclass(frozen=True)
class WorthDrawing:
    """An image, by the name people know. changing: share of its cells that one end of the interval labels otherwise
    than the other."""

    name: str
    changing: float


def worth_drawing(
    maps: StoredMaps, interval: tuple[float, float], drawn: Collection[int], *, count: int, seed: int = 0
) -> tuple[list[WorthDrawing], int]:
    """The images that change most between the ends of an interval, at most `count`, and how many were looked at.

    drawn: ordinals of images that have a mask. Labels are compared on the stride-4 grid.
    """
    ordinals = sampled(len(maps.images), LOOKED_AT, seed, without=drawn)
    shares = [(changing_share(maps.coarse(ordinal), interval), ordinal) for ordinal in ordinals]
    first = sorted((pair for pair in shares if pair[0] > 0), key=lambda pair: (-pair[0], pair[1]))[:count]
    return [WorthDrawing(maps.images.entry(ordinal).name, part) for part, ordinal in first], len(ordinals)


def sampled(total: int, most: int, seed: int, *, without: Collection[int] = ()) -> list[int]:
    """Positions drawn from a set, all of them where there are no more, ascending."""
    left = np.setdiff1d(np.arange(total), np.fromiter(without, np.int64))
    if len(left) > most:
        left = np.sort(np.random.default_rng(seed).choice(left, most, replace=False))
    return [int(position) for position in left]


def changing_share(coarse: np.ndarray, interval: tuple[float, float]) -> float:
    """Share of cells of maps [K, h, w] whose label is not the same at both ends: a class at the lower, background at
    the upper one."""
    if not len(coarse):
        return 0.0
    strongest = coarse.astype(np.float32).max(0)
    low, high = (np.float32(end) for end in interval)
    return float(((strongest > low) & ~(strongest > high)).mean())
