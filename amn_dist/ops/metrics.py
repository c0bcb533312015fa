"""Confusion counts and what follows from them (amn 1.6)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from amn_dist.errors import ShardError
from amn_dist.ops.arrays import as_array, as_floats
from amn_dist.records import IGNORE

Values = np.ndarray | Tensor
THRESHOLDS = (np.arange(1, 100) / 100).astype(np.float32)
"""Background thresholds of a sweep, f32[99]: 0.01 to 0.99."""


def confusion(prediction: Values, truth: Values, num_classes: int) -> np.ndarray:
    """Pixel counts int64[C, C], rows truth, columns prediction; truth 255 is left out, prediction 255 is background.

    Raises ShardError for a label that is neither a class nor 255.
    """
    labels = as_array(truth)
    counted = labels != IGNORE
    predicted = _known(as_array(prediction)[counted], num_classes, "prediction")
    pairs = _known(labels[counted], num_classes, "truth") * num_classes + predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def void_predictions(prediction: Values, truth: Values, num_classes: int) -> np.ndarray:
    """What is predicted where the truth is 255, int64[C]; the COCO protocol counts it as wrong."""
    predicted = _known(as_array(prediction)[as_array(truth) == IGNORE], num_classes, "prediction")
    return np.bincount(predicted, minlength=num_classes)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union f64[C] of each class; NaN for a class neither true nor predicted anywhere."""
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)


def mean_iou(values: np.ndarray) -> float:
    """Mean over the classes that are not NaN; NaN when all are."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def scores(
    confusion: np.ndarray, protocol: Literal["voc", "coco", "deeplab", "icd"] = "voc", *, void: np.ndarray | None = None
) -> np.ndarray:
    """Intersection over union of each class as a published evaluation counts it; `mean_iou` of it is its mIoU.

    voc: as `iou`, f64[C]. deeplab: classes absent from the truth are NaN, f64[C]. coco: truth 255 is one more class
    that nothing matches, f64[C + 1]; void, int64[C] of void_predictions, counts its pixels. icd: classes neither true
    nor predicted are 0; its confusion leaves out pixels predicted 255 too.
    """
    if protocol == "icd":
        return np.nan_to_num(iou(confusion))
    if protocol == "coco":
        matrix = np.zeros((len(confusion) + 1, len(confusion) + 1), np.int64)
        matrix[:-1, :-1] = confusion
        matrix[-1, :-1] = 0 if void is None else void
        return iou(matrix)
    return np.where(confusion.sum(1) > 0, iou(confusion), np.nan) if protocol == "deeplab" else iou(confusion)


def threshold_histogram(maps: Values, classes: Values, truth: Values, num_classes: int) -> np.ndarray:
    """Counts int64[C, C, 100] of pixels by truth, strongest class, and how many THRESHOLDS that class exceeds.

    maps: f32[K, H, W]. classes: [K] 1-based. truth: uint8[H, W], 255 left out. Ties between classes go to the first,
    ties with a threshold to background.
    """
    planes, names, labels = as_floats(maps), as_array(classes), as_array(truth)
    if not len(names):
        planes, names = np.zeros((1, *labels.shape), np.float32), np.zeros(1, np.uint8)
    counted, strongest = labels != IGNORE, planes.argmax(0)
    passed = np.searchsorted(THRESHOLDS, planes.max(0)[counted], side="left")
    predicted = _known(names[strongest[counted]], num_classes, "classes")
    pairs = _known(labels[counted], num_classes, "truth") * num_classes + predicted
    bins = len(THRESHOLDS) + 1
    counts = np.bincount(pairs * bins + passed, minlength=num_classes**2 * bins)
    return counts.reshape(num_classes, num_classes, bins)


def threshold_confusions(histogram: np.ndarray) -> np.ndarray:
    """Confusions int64[99, C, C] at every one of THRESHOLDS, from a sum of threshold_histogram."""
    total = histogram.sum(2)
    # A pixel is predicted as its strongest class at threshold i when it exceeds more than i of them.
    kept = total[..., None] - histogram.cumsum(2)[..., :-1]
    confusions = np.moveaxis(kept, -1, 0).copy()
    confusions[..., 0] += (total - confusions).sum(-1)
    return confusions


def _known(labels: np.ndarray, num_classes: int, name: str) -> np.ndarray:
    """Labels int64 with 255 as background, checked."""
    known = np.where(labels == IGNORE, 0, labels).astype(np.int64)
    if known.size and not 0 <= known.min() <= known.max() < num_classes:
        found, expected = f"labels {known.min()}..{known.max()}", f"0..{num_classes - 1} or {IGNORE}"
        raise ShardError(f"{name}: found {found}, expected {expected}; check the class list the labels were made with")
    return known
