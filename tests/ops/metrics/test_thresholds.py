"""Every threshold at once against one threshold at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amn_dist.errors import ShardError
from amn_dist.ops.metrics.counts import confusion, iou
from amn_dist.ops.metrics.thresholds import STEPS, THRESHOLDS, Sweep, sweep, threshold_confusions

CLASSES = 5


def image(seed: int, classes: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps, classes, truth, with exact ties with thresholds and between classes, and values beyond both ends."""
    random = np.random.default_rng(seed)
    truth = random.choice([0, 1, 2, 4, 255], (9, 11)).astype(np.uint8)
    maps = random.random((len(classes), *truth.shape), np.float32)
    maps[:, :5] = random.choice(np.concatenate([THRESHOLDS, [0, 1, 1.5, -0.5]]).astype(np.float32), maps[:, :5].shape)
    maps[:, 3] = maps[:1, 3]
    return maps, np.array(classes, np.uint8), truth


def labels_at(maps: np.ndarray, classes: np.ndarray, threshold: np.float32) -> np.ndarray:
    plane = np.full((1, *maps.shape[1:]), threshold, np.float32)
    return np.array([0, *classes])[np.concatenate([plane, maps]).argmax(0)]


def histogram(*sweeps: Sweep) -> np.ndarray:
    total = np.zeros((CLASSES, CLASSES, STEPS), np.int64)
    for image_sweep in sweeps:
        image_sweep.add_to(total)
    return total


@pytest.mark.parametrize("classes", [[], [2], [1, 2, 4], [3]])
def test_every_threshold(classes: list[int]) -> None:
    maps, ids, truth = image(len(classes), classes)
    curve = threshold_confusions(histogram(sweep(maps, ids, truth, CLASSES)))
    assert curve.shape == (99, CLASSES, CLASSES) and curve.dtype == np.int64
    for threshold, counts in zip(THRESHOLDS, curve, strict=True):
        assert np.array_equal(counts, confusion(labels_at(maps, ids, threshold), truth, CLASSES))


def test_every_float_near_a_threshold_falls_on_its_side() -> None:
    near = np.concatenate(
        [np.nextafter(THRESHOLDS, np.float32(0)), THRESHOLDS, np.nextafter(THRESHOLDS, np.float32(2))]
    )
    extremes = np.array([-1, 0, 1e-30, 1, 2, np.inf, -np.inf], np.float32)
    maps = np.concatenate([near, extremes])[None, None].astype(np.float32)
    counts = sweep(maps, np.array([1]), np.zeros(maps.shape[1:], np.uint8), CLASSES).counts[0, 0]
    expected = np.bincount(np.searchsorted(THRESHOLDS, maps.ravel(), side="left"), minlength=STEPS)
    assert np.array_equal(counts, expected)


def test_thresholds_are_the_nearest_floats() -> None:
    assert [float(t) for t in THRESHOLDS] == [float(np.float32(f"0.{i:02d}")) for i in range(1, 100)]


def test_histograms_add_up() -> None:
    examples = [image(seed, [1, 4]) for seed in range(3)]
    total = threshold_confusions(histogram(*(sweep(*example, CLASSES) for example in examples)))[24]
    expected = sum(confusion(labels_at(maps, ids, THRESHOLDS[24]), truth, CLASSES) for maps, ids, truth in examples)
    assert np.array_equal(total, expected)


@pytest.mark.parametrize("classes", [[], [1], [1, 2, 4], [2, 3]])
def test_the_mean_iou_of_an_image(classes: list[int]) -> None:
    maps, ids, truth = image(7, classes)
    image_sweep = sweep(maps, ids, truth, CLASSES)
    for step in (0, 24, 60, 98):
        counts = confusion(labels_at(maps, ids, THRESHOLDS[step]), truth, CLASSES)
        expected = np.mean([iou(counts)[label] for label in np.unique(truth) if label != 255])
        assert image_sweep.miou()[step] == pytest.approx(expected, abs=1e-12)
        total = np.zeros((CLASSES, CLASSES), np.int64)
        image_sweep.add_confusion_to(total, step)
        assert np.array_equal(total, counts)


def test_an_image_without_background_counts_its_classes_alone() -> None:
    truth = np.array([[1, 1, 1, 2]], np.uint8)
    maps = np.array([[[0.9, 0.8, 0.1, 0]], [[0, 0, 0, 0.6]]], np.float32)
    miou = sweep(maps, np.array([1, 2]), truth, 3).miou()
    assert miou[4] == 1 and miou[49] == (2 / 3 + 1) / 2 and miou[98] == 0


def test_torch_and_other_layouts_count_the_same() -> None:
    maps, ids, truth = image(3, [1, 2])
    expected = sweep(maps, ids, truth, CLASSES).counts
    assert np.array_equal(
        sweep(torch.from_numpy(maps), torch.from_numpy(ids), torch.from_numpy(truth), CLASSES).counts, expected
    )
    turned = np.asfortranarray(maps.astype(np.float64)), ids, truth.astype(np.int64)
    assert np.array_equal(sweep(*turned, CLASSES).counts, expected)


def test_labels_beyond_the_classes_are_refused() -> None:
    maps, fine, beyond = (
        np.ones((1, 2, 2), np.float32),
        np.zeros((2, 2), np.uint8),
        np.array([[0, 7], [0, 0]], np.uint8),
    )
    with pytest.raises(ShardError, match="classes: found"):
        sweep(maps, np.array([5]), fine, CLASSES)
    with pytest.raises(ShardError, match=r"truth: found labels 0\.\.7, expected 0\.\.4"):
        sweep(maps, np.array([1]), beyond, CLASSES)


@given(
    maps=arrays(np.float32, st.tuples(st.integers(1, 3), st.just(2), st.just(5)), elements=st.floats(-1, 2, width=32)),
    truth=arrays(np.uint8, (2, 5), elements=st.sampled_from([0, 1, 2, 4, 255])),
    step=st.integers(0, 98),
)
def test_any_maps(maps: np.ndarray, truth: np.ndarray, step: int) -> None:
    ids = np.array([1, 2, 4][: len(maps)])
    total = np.zeros((CLASSES, CLASSES), np.int64)
    sweep(maps, ids, truth, CLASSES).add_confusion_to(total, step)
    assert np.array_equal(total, confusion(labels_at(maps, ids, THRESHOLDS[step]), truth, CLASSES))
