"""Activations against every threshold at once: counts of an image, of a set, and an image's own best threshold.

A pixel is predicted as its strongest class where that exceeds the threshold, else as background (amn 1.6). Counting how
many thresholds it exceeds gives the predictions at all of them in one pass. R classes in the truth of an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from torch import Tensor

from amn_dist.ops.arrays import as_array, as_floats
from amn_dist.ops.metrics.counts import check_labels
from amn_dist.records import IGNORE

Values = np.ndarray | Tensor
THRESHOLDS = (np.arange(1, 100) / 100).astype(np.float32)
"""Background thresholds of a sweep, f32[99]: 0.01 to 0.99."""
STEPS = len(THRESHOLDS) + 1
"""A strongest activation exceeds 0 to 99 of them."""


@dataclass(frozen=True)
class Sweep:
    """Pixels of one image by truth, strongest class, and how many THRESHOLDS that class exceeds.

    truths: int64[R] ids in ascending order. classes: int64[K] different ids. counts: int64[R + 1, K, 100], the last of
    pixels whose truth is 255.
    """

    truths: np.ndarray
    classes: np.ndarray
    counts: np.ndarray

    def add_to(self, histogram: np.ndarray) -> None:
        """Add the counts to those of a set, in place: int64[C + 1, C, 100]; int64[C, C, 100] leaves truth 255 out."""
        rows, counts = self._rows_in(histogram)
        histogram[np.ix_(rows, self.classes)] += counts

    def add_confusion_to(self, confusion: np.ndarray, step: int) -> None:
        """Add the confusion at THRESHOLDS[step] to that of a set, in place: int64[C + 1, C], or int64[C, C]."""
        rows, counts = self._rows_in(confusion)
        above = counts[..., step + 1 :].sum(-1)
        confusion[np.ix_(rows, self.classes)] += above
        confusion[rows, 0] += counts.sum((1, 2)) - above.sum(1)

    def _rows_in(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a set's sums that this image adds to, and what it adds there."""
        if len(sums) == sums.shape[1]:
            return self.truths, self.counts[:-1]
        return np.append(self.truths, len(sums) - 1), self.counts

    def miou(self) -> np.ndarray:
        """Mean IoU f64[99] at every threshold over the classes of the truth, background among them where it occurs."""
        counts = self.counts[:-1]
        above = counts[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]
        true = counts.sum((1, 2))
        own = self.truths[:, None] == self.classes
        hit = (above * own[..., None]).sum(1)
        predicted = (own[..., None] * above.sum(0)).sum(1)
        for row in np.flatnonzero(self.truths == 0):
            below = true[:, None] - above.sum(1)
            hit[row], predicted[row] = below[row], below.sum(0)
        return (hit / (true[:, None] + predicted - hit)).mean(0)


def sweep(maps: Values, classes: Values, truth: Values, num_classes: int) -> Sweep:
    """Count an image. maps: f32[K, H, W]. classes: [K] 1-based. truth: uint8[H, W], 255 counted apart.

    Ties between classes go to the first, ties with a threshold to background. Raises ShardError for a label that is
    neither a class nor 255.
    """
    planes, ids, labels = as_floats(maps), as_array(classes).astype(np.int64), as_array(truth).ravel()
    if not len(ids):
        planes, ids = np.zeros((1, len(labels)), np.float32), np.zeros(1, np.int64)
    truths = np.flatnonzero(np.bincount(labels, minlength=IGNORE + 1))
    truths = truths[truths != IGNORE]
    check_labels(truths, num_classes, "truth")
    check_labels(ids, num_classes, "classes")
    rows = np.full(IGNORE + 1, len(truths))
    rows[truths] = np.arange(len(truths))
    counts = np.zeros((len(truths) + 1, len(ids), STEPS), np.int64)
    flat = np.ascontiguousarray(planes.reshape(len(ids), -1))
    _count(flat, labels.astype(np.uint8, copy=False), rows, THRESHOLDS, counts)
    return Sweep(truths, ids, counts)


def threshold_confusions(histogram: np.ndarray) -> np.ndarray:
    """Confusions int64[99, R, C] at every one of THRESHOLDS, from a sum of sweeps int64[R, C, 100]."""
    total = histogram.sum(2)
    # A pixel is predicted as its strongest class at threshold i when it exceeds more than i of them.
    above = total[..., None] - histogram.cumsum(2)[..., :-1]
    confusions = np.moveaxis(above, -1, 0).copy()
    confusions[..., 0] += (total - confusions).sum(-1)
    return confusions


@njit(cache=True, nogil=True)
def _count(planes, labels, rows, thresholds, counts):  # type: ignore[no-untyped-def]
    """Add every pixel of planes f32[K, P] to counts[row of its label, strongest class, thresholds passed]."""
    last = len(thresholds)
    for pixel in range(len(labels)):
        strongest, value = 0, planes[0, pixel]
        for k in range(1, len(planes)):
            if planes[k, pixel] > value:
                strongest, value = k, planes[k, pixel]
        # Thresholds are float32: the product may be off by one step either way.
        passed = 0 if not value > 0 else last if value >= 1 else int(value * (last + 1))
        while passed < last and thresholds[passed] < value:
            passed += 1
        while passed > 0 and not thresholds[passed - 1] < value:
            passed -= 1
        counts[rows[labels[pixel]], strongest, passed] += 1
