"""Signed maps, positive inside their class and negative outside it, to labels and to activations (icd 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from amn_dist.ops.crf.batch import batched_crf, batches
from amn_dist.ops.crf.dense import Backend, dense_crf
from amn_dist.records import IGNORE

EPSILON = 1e-5
"""Least share of a map's peak that counts as signed, least divisor of a peak."""
CERTAINTY = 0.5
"""Probability the CRF is given for a decided label."""
BILATERAL = (80.0, 13.0, 10.0)
"""Of the CRF: deviation in pixels, in colours, weight (icd 5.3)."""
UNDECIDED = 0.1
"""Highest marginal of a pixel that the CRF leaves undecided."""


def signed_labels(signed: np.ndarray, cam: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Labels uint8[H, W] that signed maps decide without a threshold; 255 where they do not (icd 5.1).

    signed, cam: f32[K, H, W], logits. classes: uint8[K], 1-based. K = 0 is background throughout.
    """
    if not len(classes):
        return np.zeros(signed.shape[1:], np.uint8)
    foreground = np.any(positive_part(signed) > EPSILON, axis=0)
    background = np.all(positive_part(-signed) > EPSILON, axis=0)
    labels = np.zeros(signed.shape[1:], np.uint8)
    evidence = agreement(signed, cam)
    labels[foreground] = classes[evidence.argmax(0)][foreground]
    undecided = foreground == background
    if len(classes) > 1:
        undecided |= foreground & (np.ptp(evidence, axis=0) <= EPSILON)
    labels[undecided] = IGNORE
    return labels


def signed_activation(signed: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Activation f32[K, H, W] in [0, 1] of signed maps: positive parts over their peaks (icd 5.2).

    Where several classes are positive, the one that CAM and the signed maps agree on most stays.
    """
    activation = positive_part(signed)
    if len(signed) < 2:
        return activation
    evidence = agreement(signed, cam)
    losers = np.arange(len(signed))[:, None, None] != evidence.argmax(0)
    contested = ((activation > EPSILON).sum(0) > 1) & (np.ptp(evidence, axis=0) > EPSILON)
    return np.where(contested & losers, np.float32(0), activation)


def agreement(signed: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Product f32[K, H, W] of CAM, stretched to [0, 1] over all classes together, and the positive signed parts."""
    seen = cam.clip(min=0)
    low, high = seen.min(), seen.max()
    return (seen - low) / max(high - low, EPSILON) * positive_part(signed)


def positive_part(signed: np.ndarray) -> np.ndarray:
    """Positive part of each map over its peak, f32[K, H, W] in [0, 1]."""
    positive = signed.clip(min=0)
    return positive / positive.max((1, 2), keepdims=True, initial=EPSILON)


def two_threshold_labels(maps: np.ndarray, classes: np.ndarray, *, foreground: float, background: float) -> np.ndarray:
    """Labels uint8[H, W] of maps f32[K, H, W]: the strongest class above `foreground`, 0 to `background`, else 255."""
    if not len(classes):
        return np.zeros(maps.shape[1:], np.uint8)
    strongest = maps.max(0)
    rest = np.where(strongest > background, np.uint8(IGNORE), np.uint8(0))
    return np.where(strongest > foreground, classes[maps.argmax(0)], rest)


def refine_labels(
    image: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    iterations: int = 10,
    backend: Backend = "auto",
) -> np.ndarray:
    """Labels uint8[H, W] after a CRF over all classes; undecided pixels (255) take the label of their like (icd 5.3).

    image: uint8[H, W, 3]. Classes the photo is not tagged with take part, as published.
    """
    unary = label_unary(labels, num_classes)
    marginals = dense_crf(image, unary, gaussian=(3, 3), bilateral=BILATERAL, iterations=iterations, backend=backend)
    refined = marginals.argmax(0).astype(np.uint8)
    refined[marginals.max(0) < UNDECIDED] = IGNORE
    return refined


def refined_on_device(images: Sequence[Tensor], labels: Sequence[Tensor], num_classes: int) -> list[Tensor]:
    """refine_labels of images uint8[H, W, 3] and labels uint8[H, W] of any sizes on one device, CRFs in batches."""
    refined, pixels = list(labels), [of_image.numel() for of_image in labels]
    for batch in batches([num_classes * count for count in pixels], pixels):
        unaries = [_unary_on_device(labels[place], num_classes)[None] for place in batch]
        for number, marginals in batched_crf([images[place] for place in batch], unaries, bilateral=BILATERAL):
            highest, strongest = marginals[0].max(0)
            refined[batch[number]] = torch.where(highest < UNDECIDED, IGNORE, strongest).to(torch.uint8)
    return refined


def label_unary(labels: np.ndarray, count: int) -> np.ndarray:
    """Unary f32[count, H, W] of labels 0..count-1: 255 is uniform, any other label has CERTAINTY before normalising."""
    own, other = _energies(count)
    unary = np.where(np.arange(count)[:, None, None] == labels, own, other)
    return np.where(labels == IGNORE, np.log(count), unary).astype(np.float32)


def _unary_on_device(labels: Tensor, count: int) -> Tensor:
    own, other = _energies(count)
    places = torch.arange(count, device=labels.device)[:, None, None]
    return torch.where(labels == IGNORE, float(np.log(count)), torch.where(places == labels, own, other))


def _energies(count: int) -> tuple[float, float]:
    """Of a pixel's own label and of every other one."""
    rest = CERTAINTY / count
    whole = CERTAINTY + (count - 1) * rest
    return float(-np.log(CERTAINTY / whole)), float(-np.log(rest / whole))
