"""Criteria that need no truth, against loops over pixels and thresholds; and on scenes where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from amn_dist.ops.crf.dense import dense_crf, hard_label_unary
from amn_dist.ops.metrics.label_free import contour_contrast, crf_agreement, passed_thresholds
from amn_dist.ops.metrics.thresholds import THRESHOLDS


def scene(seed: int, size: tuple[int, int] = (40, 56)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright box with some noise, its mask, and a map that crosses 0.5 at its outline."""
    random = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    top, left = random.integers(6, 14, 2)
    mask[top : top + 18, left : left + 26] = True
    photo = np.where(mask[..., None], [200, 120, 60], [60, 90, 130]) + random.normal(0, 6, (*size, 3))
    return photo.clip(0, 255).astype(np.uint8), mask, gaussian_filter(mask.astype(np.float32), 4)[None]


def test_steps_of_colour_across_outlines() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    maps = random.random((2, 6, 7), dtype=np.float32)
    pairs = [((y, x), (y + 1, x)) for y in range(5) for x in range(7)]
    pairs += [((y, x), (y, x + 1)) for y in range(6) for x in range(6)]
    steps = [np.abs(image[a].astype(float) - image[b].astype(float)).mean() for a, b in pairs]
    expected = np.zeros((2, len(THRESHOLDS)))
    for i, threshold in enumerate(THRESHOLDS):
        inside = maps.max(0) > threshold
        for step, (a, b) in zip(steps, pairs, strict=True):
            if inside[a] != inside[b]:
                expected[:, i] += step / np.mean(steps), 1
    np.testing.assert_allclose(contour_contrast(image, maps), expected, rtol=1e-5, atol=1e-9)


def test_thresholds_that_a_pixel_passes() -> None:
    values = np.array([0, 0.01, 0.0101, 0.5, 0.99, 1.0], np.float32)
    expected = [sum(value > threshold for threshold in THRESHOLDS) for value in values]
    assert passed_thresholds(values[None, None]).ravel().tolist() == expected


def test_agreement_is_that_of_each_threshold_alone() -> None:
    image, _, maps = scene(1)
    maps = np.concatenate([maps, maps[:, ::-1] * 0.8])
    positions = [9, 29, 69]
    counts = crf_agreement(image, maps, positions)
    for position, found in zip(positions, counts, strict=True):
        plane = np.full((1, *maps.shape[1:]), THRESHOLDS[position], np.float32)
        labels = np.concatenate([plane, maps]).argmax(0)
        refined = dense_crf(image, hard_label_unary(labels, 3)).argmax(0)
        expected = [[((labels > 0) == a) & ((refined > 0) == b) for b in (False, True)] for a in (False, True)]
        assert found.tolist() == np.sum(expected, axis=(-1, -2)).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_both_find_an_outline_that_is_plain_to_see(seed: int) -> None:
    image, _, maps = scene(seed)
    steps, length = contour_contrast(image, maps)
    assert abs(THRESHOLDS[(steps - length).argmax()] - 0.5) <= 0.06
    positions = range(9, 95, 10)
    counts = crf_agreement(image, maps, positions)
    hit = np.diagonal(counts, axis1=1, axis2=2)
    share = (hit / (counts.sum(1) + counts.sum(2) - hit)).mean(1)
    assert abs(THRESHOLDS[positions[int(share.argmax())]] - 0.5) <= 0.11
