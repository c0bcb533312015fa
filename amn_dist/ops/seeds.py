"""Activation to confident labels (amn 1.3)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from amn_dist.ops.arrays import Array, as_array, as_floats, same_kind
from amn_dist.ops.crf.dense import Backend, dense_crf, hard_label_unary
from amn_dist.records import IGNORE


def confident_seed(
    image: Array,
    maps: np.ndarray | Tensor,
    classes: np.ndarray | Tensor,
    *,
    foreground: float,
    background: float,
    backend: Backend = "auto",
) -> Array:
    """Labels uint8[H, W] that two thresholds agree on after a CRF each; 255 where they do not. Both CRFs run as one.

    image: uint8[H, W, 3]. maps: f32[K, H, W] in [0, 1]. classes: uint8[K], 1-based. foreground: threshold whose
    labelling claims classes. background: threshold whose labelling claims background. K = 0 is background throughout.
    """
    pixels, evidence = as_array(image), as_floats(maps)
    names = np.concatenate([[0], as_array(classes)]).astype(np.uint8)
    if len(names) == 1:
        return same_kind(np.zeros(pixels.shape[:2], np.uint8), image)
    labels = np.stack([threshold_labels(evidence, threshold) for threshold in (foreground, background)])
    claimed, cleared = names[refined_labels(image, labels, len(names), backend)]
    seed = np.where(claimed > 0, claimed, np.where(cleared == 0, 0, IGNORE)).astype(np.uint8)
    return same_kind(seed, image)


def threshold_labels(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Index of the strongest of [threshold, maps...] at every pixel, int64[H, W]; ties go to the threshold."""
    plane = np.full((1, *maps.shape[1:]), threshold, np.float32)
    return np.concatenate([plane, maps]).argmax(0)


def refined_labels(image: np.ndarray | Tensor, labels: np.ndarray, count: int, backend: Backend = "auto") -> np.ndarray:
    """Labels [..., H, W] in 0..count-1 after the CRF of the seeds, int64[..., H, W]."""
    return dense_crf(image, hard_label_unary(labels, count), backend=backend).argmax(-3)
