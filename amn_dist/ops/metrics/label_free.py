"""How well labels at a threshold agree with the photograph, without any truth: criteria at every threshold at once.

Each is a guess about what good labels look like, not a measure of how good they are; docs/calibrate.md has how far from
the best threshold their choices lay. Maps are f32[K, H, W], T = 99 THRESHOLDS; a pixel is of an object where its
strongest map exceeds the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amn_dist.ops.crf.dense import Backend
from amn_dist.ops.metrics.counts import label_counts
from amn_dist.ops.metrics.thresholds import STEPS, THRESHOLDS
from amn_dist.ops.seeds import refined_labels, threshold_labels


def passed_thresholds(maps: np.ndarray) -> np.ndarray:
    """How many of THRESHOLDS the strongest map of every pixel exceeds, int64[H, W]."""
    return np.searchsorted(THRESHOLDS, maps.max(0), side="left")


def contour_contrast(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Steps of colour across the outlines of objects, at every threshold: f64[2, T], their sum and their number.

    image: uint8[H, W, 3]. A step is the mean over colours of the absolute difference of two neighbours, over the mean
    of all steps of the image. Sums of images add up.
    """
    passed, colours = passed_thresholds(maps), image.astype(np.float32)
    steps = [np.abs(np.diff(colours, axis=axis)).mean(-1).ravel() for axis in (0, 1)]
    mean = max(float(np.concatenate(steps).mean()), 1e-9)
    sums = np.zeros((2, STEPS))
    for step, axis in zip(steps, (0, 1), strict=True):
        far, near = (np.delete(passed, end, axis).ravel() for end in (0, -1))
        lower, upper = np.minimum(far, near), np.maximum(far, near)
        for row, weights in enumerate((step / mean, np.ones_like(step))):
            # An outline runs between two neighbours at the thresholds that one passes and the other does not.
            sums[row] += np.bincount(lower, weights, STEPS) - np.bincount(upper, weights, STEPS)
    return sums.cumsum(1)[:, :-1]


def crf_agreement(
    image: np.ndarray, maps: np.ndarray, positions: Sequence[int], *, backend: Backend = "auto"
) -> np.ndarray:
    """Counts int64[positions, 2, 2] of object and background in labels (rows) and in the same after the seeds' CRF.

    positions: of the thresholds, in THRESHOLDS. All labellings of the image are filtered together.
    """
    labels = np.stack([threshold_labels(maps, float(THRESHOLDS[at])) for at in positions])
    refined = refined_labels(image, labels, len(maps) + 1, backend)
    pairs = zip(labels, np.asarray(refined), strict=True)
    return np.stack([label_counts((b > 0).astype(np.uint8), (a > 0).astype(np.uint8), 2)[:-1, :-1] for a, b in pairs])
