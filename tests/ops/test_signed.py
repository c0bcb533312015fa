"""Decoding of signed maps, case by case."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from amn_dist.ops.signed import (
    label_unary,
    positive_part,
    refine_labels,
    signed_activation,
    signed_labels,
    two_threshold_labels,
)
from amn_dist.ops.signed_device import decide
from amn_dist.records import grid_size

CLASSES = np.array([3, 7], np.uint8)
# One column a case; the last two set the peaks that maps are divided by.
CASES = {
    "A alone, seen by CAM": (1.0, -1.0, 1.0, 0.0, 3),
    "A alone, unseen by CAM": (1.0, -1.0, -1.0, 0.0, 255),
    "neither": (-1.0, -1.0, 1.0, 1.0, 0),
    "both, CAM for A": (1.0, 1.0, 2.0, 1.0, 3),
    "both, CAM for B": (1.0, 1.0, 1.0, 2.0, 7),
    "both, ICD for B": (0.5, 1.0, 1.0, 1.0, 7),
    "both, products equal": (1.0, 1.0, 1.0, 1.0, 255),
    "one exactly zero, the other below": (0.0, -1.0, 1.0, 1.0, 255),
    "A below, B exactly zero": (-1.0, 0.0, 1.0, 1.0, 255),
}
PEAKS = ((2.0, -2.0, 2.0, 0.0), (-2.0, 2.0, 0.0, 2.0))


def planes(extra: tuple[tuple[float, ...], ...] = PEAKS) -> tuple[np.ndarray, np.ndarray]:
    columns = np.array([case[:4] for case in CASES.values()] + [list(peak) for peak in extra], np.float32).T
    return columns[:2, None], columns[2:, None]


def test_every_case_of_two_classes() -> None:
    labels = signed_labels(*planes(), CLASSES)[0, : len(CASES)]
    assert dict(zip(CASES, labels.tolist(), strict=True)) == {name: case[4] for name, case in CASES.items()}


def test_one_class_does_not_look_at_cam() -> None:
    signed = np.array([[[1.0, 0.0, -1.0]]], np.float32)
    for cam in (np.zeros_like(signed), -np.ones_like(signed), 5 * np.ones_like(signed)):
        assert signed_labels(signed, cam, CLASSES[:1]).tolist() == [[3, 255, 0]]


def test_without_classes_all_is_background() -> None:
    nothing = np.zeros((0, 2, 3), np.float32)
    assert not signed_labels(nothing, nothing, CLASSES[:0]).any()
    assert not two_threshold_labels(nothing, CLASSES[:0], foreground=0.3, background=0.05).any()
    assert signed_activation(nothing, nothing).shape == (0, 2, 3)


def test_a_map_that_is_nowhere_positive_has_no_foreground() -> None:
    signed = -np.ones((1, 2, 2), np.float32)
    assert not signed_labels(signed, signed, CLASSES[:1]).any() and not positive_part(signed).any()


def test_activation_keeps_the_winner_of_a_contest() -> None:
    activation = signed_activation(*planes())[:, 0]
    names = list(CASES)
    assert activation[:, names.index("both, CAM for A")].tolist() == [0.5, 0.0]
    assert activation[:, names.index("both, CAM for B")].tolist() == [0.0, 0.5]
    assert activation[:, names.index("both, products equal")].tolist() == [0.5, 0.5]
    assert activation[:, names.index("A alone, unseen by CAM")].tolist() == [0.5, 0.0]
    assert activation.max() == 1 and activation.min() == 0


def test_thresholds_without_a_crf() -> None:
    maps = np.array([[[0.9, 0.2, 0.05, 0.0]], [[0.1, 0.1, 0.0, 0.31]]], np.float32)
    labels = two_threshold_labels(maps, CLASSES, foreground=0.3, background=0.05)
    assert labels.tolist() == [[3, 255, 0, 7]]


@pytest.mark.parametrize("count", [3, 21])
def test_unary_is_a_distribution(count: int) -> None:
    labels = np.array([[0, 2, 255]], np.uint8)
    probability = np.exp(-label_unary(labels, count).astype(np.float64))
    np.testing.assert_allclose(probability.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(probability[:, 0, 2], 1 / count, atol=1e-6)
    assert probability[2, 0, 1] / probability[0, 0, 1] == pytest.approx(count)


def test_the_crf_decides_what_was_undecided() -> None:
    image = np.ascontiguousarray(astronaut()[::6, ::6])
    labels = np.zeros(image.shape[:2], np.uint8)
    labels[20:60, 20:60] = 2
    labels[35:45, 35:45] = 255
    refined = refine_labels(image, labels, 4)
    assert refined.dtype == np.uint8 and refined.max() == 2 and (refined == 2).any() and (refined == 0).any()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_device_decides_as_the_cpu_does(count: int) -> None:
    """Random maps with ties and zeros, and every case of two classes beside them."""
    random, classes = np.random.default_rng(count), np.array([3, 7, 9], np.uint8)[:count]
    signed = random.integers(-3, 4, (count, 30, 40)).astype(np.float32)
    cam = random.integers(-1, 3, (count, 30, 40)).astype(np.float32)
    pairs = [(signed, cam)] if count != 2 else [(signed, cam), planes()]
    for one, other in pairs:
        tensors = torch.from_numpy(other), torch.from_numpy(one)
        coarse, fine, labels = decide(*tensors, torch.from_numpy(classes))
        assert np.array_equal(labels, signed_labels(one, other, classes)) and labels.dtype == torch.uint8
        np.testing.assert_allclose(fine, signed_activation(one, other), atol=1e-6)
        assert tuple(coarse.shape) == (count, *grid_size(*one.shape[1:]))


def test_a_device_knows_images_without_classes() -> None:
    nothing = torch.zeros(0, 9, 13)
    coarse, fine, labels = decide(nothing, nothing, torch.zeros(0, dtype=torch.uint8))
    assert coarse.shape == (0, 3, 4) and fine.shape == (0, 9, 13) and labels.shape == (9, 13) and not labels.any()
