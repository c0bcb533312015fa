"""Superpixels of a photo; the only place that imports scikit-image in the package (icd 2)."""

from __future__ import annotations

import numpy as np

from amn_dist.errors import StageError

MOST = 2**16
"""Regions that 16-bit ids can tell apart."""


def felzenszwalb_regions(
    image: np.ndarray, *, scale: float = 75.0, sigma: float = 0.8, min_size: int = 75
) -> np.ndarray:
    """Regions uint16[H, W] of a photo uint8[H, W, 3], ids 0..S-1 without gaps, in the order of first appearance.

    Graph segmentation on colours 0..255, published settings. scale: larger means larger regions. sigma: deviation of
    the blur before it, pixels. min_size: pixels below which a region joins a neighbour.
    """
    from skimage.segmentation import felzenszwalb  # a second of imports that one stage needs

    found = felzenszwalb(image, scale=scale, sigma=sigma, min_size=min_size, channel_axis=-1)
    return compact(found)


def compact(regions: np.ndarray) -> np.ndarray:
    """The same regions [H, W] with ids 0..S-1 in the order of first appearance, uint16."""
    _, first, inverse = np.unique(regions, return_index=True, return_inverse=True)
    if len(first) > MOST:
        raise StageError(
            f"superpixel: found {len(first)} regions in one image, expected at most {MOST}; raise min_size"
        )
    rank = np.empty(len(first), np.uint16)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse].reshape(regions.shape)


def merge_regions(regions: np.ndarray, features: np.ndarray, count: int) -> np.ndarray:
    """Merge regions [H, W] with features f[S, D] in pairs until `count` are left; uint16[H, W], compact (icd 2).

    The pair merged is the one with the largest cosine of its features plus the share of the image it leaves; regions
    need not touch. The feature of a merged region is the mean over its pixels.
    """
    area = np.bincount(regions.ravel(), minlength=len(features)).astype(np.float64)
    mean = features.astype(np.float64)
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True).clip(1e-12)
    gain = unit @ unit.T + 1 - (area[:, None] + area) / regions.size
    np.fill_diagonal(gain, -np.inf)
    into = np.arange(len(features))
    for _ in range(len(features) - count):
        kept, gone = sorted(np.unravel_index(gain.argmax(), gain.shape))
        mean[kept] = (area[[kept, gone]] @ mean[[kept, gone]]) / (area[kept] + area[gone])
        area[kept] += area[gone]
        into[into == gone] = kept
        unit[kept] = mean[kept] / max(np.linalg.norm(mean[kept]), 1e-12)
        row = unit @ unit[kept] + 1 - (area + area[kept]) / regions.size
        gain[kept] = gain[:, kept] = np.where(np.isneginf(gain[kept]), -np.inf, row)
        gain[gone] = gain[:, gone] = -np.inf
    return compact(into[regions])
