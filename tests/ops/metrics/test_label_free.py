"""Criteria that need no truth, against loops over pixels and thresholds; and on scenes where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from amn_dist.commands.calibrate.estimate import POSITIONS, middle_of_best
from amn_dist.ops.crf.dense import dense_crf, hard_label_unary
from amn_dist.ops.metrics.label_free import agreement_of, area_stability, crf_agreement, passed_thresholds
from amn_dist.ops.metrics.threshold_analysis import GRID
from amn_dist.ops.metrics.thresholds import THRESHOLDS


def scene(seed: int, size: tuple[int, int] = (40, 56)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright box with some noise, its mask, and a map that crosses 0.5 at its outline."""
    random = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    top, left = random.integers(6, 14, 2)
    mask[top : top + 18, left : left + 26] = True
    photo = np.where(mask[..., None], [200, 120, 60], [60, 90, 130]) + random.normal(0, 6, (*size, 3))
    return photo.clip(0, 255).astype(np.uint8), mask, gaussian_filter(mask.astype(np.float32), 4)[None]


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


@pytest.mark.parametrize("seed", range(2))
def test_the_crf_agrees_with_an_outline_that_is_plain_to_see(seed: int) -> None:
    image, _, maps = scene(seed)
    positions = range(9, 95, 10)
    counts = crf_agreement(image, maps, positions)
    expected = [np.mean([n[0, 0] / (n.sum() - n[1, 1]), n[1, 1] / (n.sum() - n[0, 0])]) for n in counts]
    np.testing.assert_allclose(agreement_of(counts), expected)
    assert abs(THRESHOLDS[positions[int(agreement_of(counts).argmax())]] - 0.5) <= 0.11


def test_an_area_is_stable_where_few_pixels_come_or_go() -> None:
    passed = np.random.default_rng(0).integers(0, 50, 100)
    passed[60:70] = 0
    area = [sum(passed[i + 1 :]) for i in range(99)]
    stability = area_stability(passed)
    for i in range(3, 96):
        assert stability[i] == pytest.approx(-(area[i - 3] - area[i + 3]) / max(area[i], 1))
    assert 62 <= stability.argmax() <= 66 and np.isinf(stability[[0, 2, 96, 98]]).all()


def test_where_many_thresholds_agree_alike_their_middle_is_taken() -> None:
    agreement = np.full(len(POSITIONS), 0.2)
    agreement[3:8] = 0.7, 0.695, 0.699, 0.701, 0.693
    assert middle_of_best(agreement) == GRID[round(np.mean([POSITIONS[i] for i in range(3, 8)]))]
    agreement[11] = 0.9
    assert middle_of_best(agreement) == GRID[POSITIONS[11]]
