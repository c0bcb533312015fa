"""Boundary IoU against masks eroded one by one, as its authors compute it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amn_dist.errors import ShardError
from amn_dist.ops.metrics.boundary import band_labels, band_width, boundary_counts, boundary_iou, truth_band


def eroded(mask: np.ndarray, width: int) -> np.ndarray:
    """A mask bool[H, W] after `width` erosions by 3x3 pixels; what lies outside the image is not of it."""
    for _ in range(width):
        padded = np.pad(mask, 1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
        mask = windows.all((2, 3))
    return mask


def naive_counts(prediction: np.ndarray, truth: np.ndarray, num_classes: int, width: int) -> np.ndarray:
    counted = truth != 255
    decided = np.where(prediction == 255, 0, prediction)
    counts = np.zeros((2, num_classes), np.int64)
    for index in range(num_classes):
        masks = [(labels == index) & counted for labels in (decided, truth)]
        predicted, true = (mask & ~eroded(mask, width) for mask in masks)
        counts[:, index] = (predicted & true).sum(), (predicted | true).sum()
    return counts


LABELS = st.sampled_from([0, 0, 0, 1, 1, 2, 255])


@given(st.data(), st.integers(1, 14), st.integers(1, 14))
def test_counts_are_those_of_masks_eroded_one_by_one(data: st.DataObject, height: int, width: int) -> None:
    prediction, truth = (data.draw(arrays(np.uint8, (height, width), elements=LABELS)) for _ in range(2))
    assert np.array_equal(boundary_counts(prediction, truth, 3), naive_counts(prediction, truth, 3, 1))


@pytest.mark.parametrize("size", [(150, 200), (333, 90)])
def test_the_band_grows_with_the_image(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(size))
    truth, prediction = (np.kron(rng.integers(0, 3, (10, 10)), np.ones((40, 40))).astype(np.uint8) for _ in range(2))
    truth, prediction = truth[: size[0], : size[1]], prediction[: size[0], : size[1]]
    truth[20:30] = 255
    assert band_width(size) == round(0.02 * (size[0] ** 2 + size[1] ** 2) ** 0.5) > 4
    expected = naive_counts(prediction, truth, 3, band_width(size))
    assert np.array_equal(boundary_counts(prediction, truth, 3), expected)
    assert np.array_equal(boundary_counts(prediction, truth, 3, true_band=truth_band(truth)), expected)


def test_a_disc_one_pixel_too_large_loses_more_at_its_boundary_than_inside() -> None:
    rows, columns = np.mgrid[:200, :200]
    distance = np.hypot(rows - 100, columns - 100)
    truth, prediction = (distance < 60).astype(np.uint8), (distance < 61).astype(np.uint8)
    iou = (truth & prediction).sum() / (truth | prediction).sum()
    of_background, of_disc = boundary_iou(boundary_counts(prediction, truth, 2))
    assert of_disc < iou - 0.1 and 0.5 < of_disc < of_background < 1
    assert boundary_iou(boundary_counts(truth, truth, 2)).tolist() == [1, 1]


def test_a_class_that_occurs_nowhere_is_nan_and_sums_are_of_images() -> None:
    truth = np.zeros((8, 8), np.uint8)
    counts = boundary_counts(truth, truth, 3)
    assert counts.dtype == np.int64 and counts[:, 0].tolist() == [28, 28]  # the image's edge is a contour
    assert np.isnan(boundary_iou(2 * counts)[1:]).all() and boundary_iou(2 * counts)[0] == 1


def test_bands_are_of_the_labels_near_another() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[:, 5:] = 7
    band = band_labels(labels, 1)
    assert (band[4] == [0, 255, 255, 255, 0, 7, 255, 255, 7]).all()


def test_foreign_labels_are_refused() -> None:
    good, bad = np.zeros((4, 4), np.uint8), np.full((4, 4), 9, np.uint8)
    with pytest.raises(ShardError, match="truth: found labels 9"):
        boundary_counts(good, bad, 3)
    with pytest.raises(ShardError, match="prediction: found labels 9"):
        boundary_counts(bad, good, 3)
