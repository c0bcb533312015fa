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

    segments = felzenszwalb(image, scale=scale, sigma=sigma, min_size=min_size, channel_axis=-1)
    return compact(segments)


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
