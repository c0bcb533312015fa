"""Boundary IoU: agreement near the contours of labels, where a mask's quality shows (Cheng et al., CVPR 2021)."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from amn_dist.ops.metrics.counts import check_labels
from amn_dist.records import IGNORE

RATIO = 0.02
"""Width of the band inside a contour as a share of the image's diagonal, as published."""
OUTSIDE = -1
"""Stands beyond the image: its edge is a contour too."""


def boundary_counts(
    prediction: np.ndarray, truth: np.ndarray, num_classes: int, *, true_band: np.ndarray | None = None
) -> np.ndarray:
    """Pixels in the bands of both, and in the band of either, by class: int64[2, C], to be summed over images.

    prediction, truth: uint8[H, W]. An undecided prediction is background. Where the truth is 255 neither is looked at,
    and the contours of both end there. true_band: truth_band of the truth, where it is at hand. Raises ShardError for a
    label that is neither a class nor 255.
    """
    void = truth == IGNORE
    seen = np.where(void, IGNORE, np.where(prediction == IGNORE, 0, prediction))
    bands = [band_labels(seen, band_width(truth.shape)), truth_band(truth) if true_band is None else true_band]
    for labels, name in zip(bands, ("prediction", "truth"), strict=True):
        check_labels(labels[labels != IGNORE], num_classes, name)
    predicted, true, both = (
        np.bincount(labels[labels != IGNORE], minlength=num_classes)
        for labels in (*bands, np.where(bands[0] == bands[1], bands[1], IGNORE))
    )
    return np.stack([both, predicted + true - both]).astype(np.int64)


def boundary_iou(counts: np.ndarray) -> np.ndarray:
    """Boundary IoU f64[C] of summed counts; NaN for a class neither true nor predicted anywhere."""
    both, either = counts
    return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)


def truth_band(truth: np.ndarray) -> np.ndarray:
    """The truth uint8[H, W] within its band, 255 elsewhere: the same for all that is compared with it."""
    return band_labels(truth, band_width(truth.shape))


def band_width(size: tuple[int, ...]) -> int:
    """Pixels of the band in an image of this size (H, W)."""
    return max(round(RATIO * math.hypot(*size)), 1)


def band_labels(labels: np.ndarray, width: int) -> np.ndarray:
    """Labels uint8[H, W] within `width` pixels of another label or of the image's edge, 255 elsewhere.

    That is every class's mask without its erosion by a square of 2 width + 1 pixels, for all classes at once: an eroded
    pixel is one around which labels do not differ.
    """
    around = {"size": 2 * width + 1, "mode": "constant", "cval": OUTSIDE}
    wide = labels.astype(np.int16)
    inside = ndimage.minimum_filter(wide, **around) == ndimage.maximum_filter(wide, **around)
    return np.where(inside, IGNORE, labels).astype(np.uint8)
