"""How evenly an activation covers a true object, and how far it stands out of the background."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

UNIT = 1_000_000
"""Sums of values are whole numbers of millionths, so that they do not depend on the order of shards."""


@dataclass(frozen=True)
class Bins:
    """`count` equal bins over low..high; values beyond fall into the outermost."""

    low: float
    high: float
    count: int

    def index(self, value: float) -> int:
        """The bin of a value."""
        return min(max(int((value - self.low) / self.width), 0), self.count - 1)

    @property
    def width(self) -> float:
        return (self.high - self.low) / self.count

    def quartiles(self, histogram: np.ndarray) -> list[float]:
        """Quartiles of what int64[count] counts, each the middle of the bin it lies in."""
        return [round(self.low + self.width * (index + 0.5), 6) for index in quartile_indices(histogram)]


def quartile_indices(histogram: np.ndarray) -> list[int]:
    """Where the quartiles of counted values lie: the first places below and at which a quarter, a half ... are."""
    below = histogram.cumsum()
    return [int(np.searchsorted(below, share * below[-1], side="left")) for share in (0.25, 0.5, 0.75)]


MEASURES = {"cv": Bins(0, 5, 500), "gini": Bins(0, 1, 100), "gap": Bins(-1, 1, 200)}
"""What is counted of every object; all bins are 0.01 wide."""


@dataclass(frozen=True)
class ObjectActivation:
    """The activation of one class inside its true pixels in one image; a figure that is undefined is None.

    cv: deviation over mean. gini: half the mean difference of two pixels over the mean. gap: mean inside minus mean on
    true background.
    """

    label: int
    cv: float | None
    gini: float | None
    gap: float | None


def object_activations(maps: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> Iterator[ObjectActivation]:
    """Every class that has a map and true pixels. maps: f32[K, H, W] >= 0. classes: [K] 1-based. truth: uint8[H, W]."""
    empty = truth == 0
    for label, plane in zip(classes, maps, strict=True):
        inside = plane[truth == label]
        if not len(inside):
            continue
        mean = float(inside.mean(dtype=np.float64))
        gap = mean - float(plane[empty].mean(dtype=np.float64)) if empty.any() else None
        cv, unequal = (coefficient_of_variation(inside), gini(inside)) if mean > 0 else (None, None)
        yield ObjectActivation(int(label), cv, unequal, gap)


def coefficient_of_variation(values: np.ndarray) -> float:
    """Deviation over mean of values f32[n] >= 0 that are not all 0; 0 where all are equal."""
    return float(values.std(dtype=np.float64) / values.mean(dtype=np.float64))


def gini(values: np.ndarray) -> float:
    """Gini coefficient in [0, 1) of values f32[n] >= 0 that are not all 0; 0 where all are equal.

    Mean absolute difference of two values, drawn with replacement, over twice their mean.
    """
    ascending = np.sort(values).astype(np.float64)
    count = len(ascending)
    ranks = 2 * np.arange(1, count + 1) - count - 1
    return float(ranks @ ascending / (count * ascending.sum()))
