"""Superpixels: what a region promises, and merging against trying every pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from amn_dist.errors import StageError
from amn_dist.ops.superpixel import MOST, compact, felzenszwalb_regions


def scene(height: int = 60, width: int = 80) -> np.ndarray:
    """A noisy photo whose left half is dark and whose right half is bright."""
    image = np.random.default_rng(0).normal(60, 3, (height, width, 3))
    image[:, width // 2 :] += 120
    return image.clip(0, 255).astype(np.uint8)


def test_regions_follow_colour() -> None:
    regions = felzenszwalb_regions(scene())
    assert regions.dtype == np.uint16 and regions.shape == (60, 80)
    left, right = regions[:, :38], regions[:, 42:]
    assert not set(left.ravel()) & set(right.ravel())


def test_regions_are_large_enough_connected_and_numbered_without_gaps() -> None:
    image = np.random.default_rng(1).integers(0, 256, (50, 64, 3), dtype=np.uint8)
    regions = felzenszwalb_regions(image, scale=20, min_size=30)
    sizes = np.bincount(regions.ravel())
    assert len(sizes) > 3 and sizes.min() >= 30
    assert all(ndimage.label(regions == number, np.ones((3, 3)))[1] == 1 for number in range(len(sizes)))
    assert len(np.unique(felzenszwalb_regions(image, scale=20, min_size=300))) < len(sizes)


@given(st.lists(st.integers(-5, 70_000), min_size=1, max_size=40))
def test_compact_ids_keep_the_partition_and_count_from_zero(ids: list[int]) -> None:
    given_ids = np.array([ids])
    compacted = compact(given_ids)
    assert np.array_equal(given_ids == given_ids.T, compacted == compacted.T)
    firsts = [number for index, number in enumerate(compacted[0]) if number not in compacted[0][:index]]
    assert firsts == list(range(len(set(ids))))


def test_more_regions_than_16_bits_hold_are_refused() -> None:
    with pytest.raises(StageError, match="raise min_size"):
        compact(np.arange(MOST + 1).reshape(1, -1))
