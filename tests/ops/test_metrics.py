"""Counts against brute force."""

import numpy as np
import pytest
import torch

from amn_dist.errors import ShardError
from amn_dist.ops.metrics import (
    THRESHOLDS,
    confusion,
    iou,
    mean_iou,
    scores,
    threshold_confusions,
    threshold_histogram,
    void_predictions,
)

CLASSES = 5


def masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    prediction, truth = (random.choice([0, 1, 2, 4, 255], (9, 11)).astype(np.uint8) for _ in range(2))
    return prediction, truth


def test_confusion() -> None:
    prediction, truth = masks(0)
    expected = np.zeros((CLASSES, CLASSES), np.int64)
    for p, t in zip(prediction.flat, truth.flat, strict=True):
        if t != 255:
            expected[t, 0 if p == 255 else p] += 1
    found = confusion(prediction, truth, CLASSES)
    assert found.dtype == np.int64 and np.array_equal(found, expected)
    assert np.array_equal(confusion(torch.from_numpy(prediction), torch.from_numpy(truth), CLASSES), expected)


def test_a_label_beyond_the_classes_is_refused() -> None:
    fine, beyond = np.zeros((2, 2), np.uint8), np.array([[0, 7], [0, 0]], np.uint8)
    with pytest.raises(ShardError, match=r"prediction: found labels 0\.\.7, expected 0\.\.4"):
        confusion(beyond, fine, CLASSES)
    with pytest.raises(ShardError, match="truth: found"):
        confusion(fine, beyond, CLASSES)
    with pytest.raises(ShardError, match="classes: found"):
        threshold_histogram(np.ones((1, 2, 2), np.float32), np.array([5]), fine, CLASSES)


def test_iou_of_absent_and_false_classes() -> None:
    counts = np.array([[6, 2, 0], [0, 0, 0], [0, 0, 0]])
    values = iou(counts)
    assert values[0] == 6 / 8 and values[1] == 0 and np.isnan(values[2])
    assert mean_iou(values) == 3 / 8
    assert np.isnan(mean_iou(iou(np.zeros((3, 3), np.int64))))


def test_protocols_differ_where_they_should() -> None:
    truth, prediction = np.array([0, 0, 1, 255], np.uint8), np.array([0, 2, 1, 1], np.uint8)
    counts, void = confusion(prediction, truth, 3), void_predictions(prediction, truth, 3)
    assert void.tolist() == [0, 1, 0]
    assert scores(counts, "voc").tolist() == [0.5, 1, 0]
    np.testing.assert_array_equal(scores(counts, "deeplab"), [0.5, 1, np.nan])
    assert scores(counts, "coco", void=void).tolist() == [0.5, 0.5, 0, 0]


def brute_force(maps: np.ndarray, classes: np.ndarray, truth: np.ndarray, threshold: np.float32) -> np.ndarray:
    plane = np.full((1, *truth.shape), threshold, np.float32)
    labels = np.array([0, *classes])[np.concatenate([plane, maps]).argmax(0)]
    return confusion(labels, truth, CLASSES)


@pytest.mark.parametrize("classes", [[2], [1, 2, 4]])
def test_every_threshold(classes: list[int]) -> None:
    random = np.random.default_rng(len(classes))
    truth = masks(1)[1]
    maps = random.random((len(classes), *truth.shape), np.float32)
    # Exact ties with thresholds, between classes, and values beyond both ends.
    maps[:, :5] = random.choice(np.concatenate([THRESHOLDS, [0, 1, 1.5, -0.5]]).astype(np.float32), maps[:, :5].shape)
    maps[:, 3] = maps[0, 3]
    curve = threshold_confusions(threshold_histogram(maps, np.array(classes), truth, CLASSES))
    assert curve.shape == (99, CLASSES, CLASSES) and curve.dtype == np.int64
    for threshold, found in zip(THRESHOLDS, curve, strict=True):
        assert np.array_equal(found, brute_force(maps, np.array(classes), truth, threshold))


def test_thresholds_are_the_nearest_floats() -> None:
    assert [float(t) for t in THRESHOLDS] == [float(np.float32(f"0.{i:02d}")) for i in range(1, 100)]


def test_histograms_add_up() -> None:
    random, (_, truth) = np.random.default_rng(5), masks(5)
    images = [random.random((2, *truth.shape), np.float32) for _ in range(3)]
    total = sum(threshold_histogram(maps, np.array([1, 4]), truth, CLASSES) for maps in images)
    expected = sum(brute_force(maps, np.array([1, 4]), truth, THRESHOLDS[24]) for maps in images)
    assert np.array_equal(threshold_confusions(np.asarray(total))[24], expected)


def test_an_image_without_classes_is_background_at_every_threshold() -> None:
    truth = masks(6)[1]
    maps, classes = np.zeros((0, *truth.shape), np.float32), np.zeros(0, np.uint8)
    curve = threshold_confusions(threshold_histogram(maps, classes, truth, CLASSES))
    assert (curve == confusion(np.zeros_like(truth), truth, CLASSES)).all()


def test_icd_leaves_undecided_pixels_out_and_counts_absent_classes() -> None:
    prediction, truth = masks(3)
    kept = np.where(prediction == 255, 255, truth)
    found = scores(confusion(prediction, kept, CLASSES), "icd")
    valid = (prediction != 255) & (truth != 255)
    for k in range(CLASSES):
        both = (valid & (prediction == k) & (truth == k)).sum()
        either = (valid & ((prediction == k) | (truth == k))).sum()
        assert found[k] == (both / either if either else 0)
    assert found[3] == 0 and np.isnan(scores(confusion(prediction, kept, CLASSES), "voc")[3])
