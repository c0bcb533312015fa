"""Confusion counts and what follows from them (amn 1.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from amn_dist.errors import ShardError
from amn_dist.ops.arrays import as_array
from amn_dist.records import IGNORE

if TYPE_CHECKING:
    from amn_dist.config import Protocol

Values = np.ndarray | Tensor


def confusion(prediction: Values, truth: Values, num_classes: int) -> np.ndarray:
    """Pixel counts int64[C, C], rows truth, columns prediction; truth 255 is left out, prediction 255 is background.

    Raises ShardError for a label that is neither a class nor 255.
    """
    labels = as_array(truth)
    counted = labels != IGNORE
    predicted = _background_for_void(as_array(prediction)[counted], num_classes, "prediction")
    pairs = _background_for_void(labels[counted], num_classes, "truth") * num_classes + predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def void_predictions(prediction: Values, truth: Values, num_classes: int) -> np.ndarray:
    """What is predicted where the truth is 255, int64[C]; the COCO protocol counts it as wrong."""
    predicted = _background_for_void(as_array(prediction)[as_array(truth) == IGNORE], num_classes, "prediction")
    return np.bincount(predicted, minlength=num_classes)


def label_counts(prediction: Values, truth: Values, num_classes: int) -> np.ndarray:
    """Pixel counts int64[C + 1, C + 1], rows truth, columns prediction, 255 last: all that any protocol asks for.

    Raises ShardError for a label that is neither a class nor 255.
    """
    rows, columns = _with_void(truth, num_classes, "truth"), _with_void(prediction, num_classes, "prediction")
    size = num_classes + 1
    return np.bincount(rows * size + columns, minlength=size**2).reshape(size, size)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union f64[C] of each class; NaN for a class neither true nor predicted anywhere."""
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)


def mean_iou(values: np.ndarray) -> float:
    """Mean over the classes that are not NaN; NaN when all are."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def protocol_iou(counts: np.ndarray, protocol: Protocol) -> np.ndarray:
    """As `scores`, from all counts int64[C + 1, C + 1] of label_counts."""
    decided = counts[:, :-1]
    if protocol == "icd":
        return scores(decided[:-1], protocol)
    void_as_background = decided.copy()
    void_as_background[:, 0] += counts[:, -1]
    return scores(void_as_background[:-1], protocol, void=void_as_background[-1])


def scores(confusion: np.ndarray, protocol: Protocol = "voc", *, void: np.ndarray | None = None) -> np.ndarray:
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


def check_labels(labels: np.ndarray, num_classes: int, name: str) -> np.ndarray:
    """Return integer labels. Raises ShardError unless all are ids of the classes."""
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        found, expected = f"labels {labels.min()}..{labels.max()}", f"0..{num_classes - 1} or {IGNORE}"
        raise ShardError(f"{name}: found {found}, expected {expected}; check the class list the labels were made with")
    return labels


def _background_for_void(labels: np.ndarray, num_classes: int, name: str) -> np.ndarray:
    """Labels int64 with 255 as background, checked."""
    return check_labels(np.where(labels == IGNORE, 0, labels).astype(np.int64), num_classes, name)


def _with_void(labels: Values, num_classes: int, name: str) -> np.ndarray:
    """Labels int64[pixels] with 255 as the class behind the last, checked."""
    ids = as_array(labels).ravel()
    void = ids == IGNORE
    check_labels(ids[~void], num_classes, name)
    return np.where(void, num_classes, ids).astype(np.int64)
