"""Activation to confident labels (amn 1.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from amn_dist.ops.arrays import Array, as_array, as_floats, same_kind
from amn_dist.ops.crf.batch import batched_crf, label_energies
from amn_dist.ops.crf.dense import Backend, dense_crf, hard_label_unary
from amn_dist.ops.transfer import all_to_device
from amn_dist.records import IGNORE

CERTAINTY = 0.7
"""Probability the CRFs are given for a label."""


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
    return dense_crf(image, hard_label_unary(labels, count, CERTAINTY), backend=backend).argmax(-3)


def confident_seeds(
    images: Sequence[Tensor],
    maps: Sequence[Tensor],
    classes: Sequence[np.ndarray],
    *,
    foreground: float,
    background: float,
) -> list[Tensor]:
    """confident_seed of images of any sizes on one device, their CRFs in batches: uint8[H, W] each, where they lie."""
    seeds = [image.new_zeros(image.shape[:2]) for image in images]
    tagged = [place for place, present in enumerate(classes) if len(present)]
    if not tagged:
        return seeds
    names = all_to_device(
        [np.concatenate([[0], classes[place]]).astype(np.uint8) for place in tagged], images[0].device
    )
    labels = [_claims(maps[place], (foreground, background)) for place in tagged]
    unaries = [label_energies(one, len(name), CERTAINTY) for one, name in zip(labels, names, strict=True)]
    for number, marginals in batched_crf([images[place] for place in tagged], unaries):
        claimed, cleared = names[number][marginals.argmax(1)]
        undecided = torch.where(cleared == 0, cleared, IGNORE)
        seeds[tagged[number]] = torch.where(claimed > 0, claimed, undecided).to(torch.uint8)
    return seeds


def _claims(maps: Tensor, thresholds: tuple[float, float]) -> Tensor:
    """threshold_labels of maps f32[K, H, W] for each threshold, int64[2, H, W]."""
    planes = [maps.new_full((1, *maps.shape[1:]), threshold) for threshold in thresholds]
    return torch.stack([torch.cat([plane, maps]).argmax(0) for plane in planes])
