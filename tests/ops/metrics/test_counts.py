"""Counts against brute force."""

import numpy as np
import pytest
import torch

from amn_dist.errors import ShardError
from amn_dist.ops.metrics.counts import confusion, iou, mean_iou, scores, void_predictions

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
    counts = confusion(prediction, truth, CLASSES)
    assert counts.dtype == np.int64 and np.array_equal(counts, expected)
    assert np.array_equal(confusion(torch.from_numpy(prediction), torch.from_numpy(truth), CLASSES), expected)


def test_a_label_beyond_the_classes_is_refused() -> None:
    fine, beyond = np.zeros((2, 2), np.uint8), np.array([[0, 7], [0, 0]], np.uint8)
    with pytest.raises(ShardError, match=r"prediction: found labels 0\.\.7, expected 0\.\.4"):
        confusion(beyond, fine, CLASSES)
    with pytest.raises(ShardError, match="truth: found"):
        confusion(fine, beyond, CLASSES)


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


def test_icd_leaves_undecided_pixels_out_and_counts_absent_classes() -> None:
    prediction, truth = masks(3)
    decided_truth = np.where(prediction == 255, 255, truth)
    class_iou = scores(confusion(prediction, decided_truth, CLASSES), "icd")
    valid = (prediction != 255) & (truth != 255)
    for k in range(CLASSES):
        both = (valid & (prediction == k) & (truth == k)).sum()
        either = (valid & ((prediction == k) | (truth == k))).sum()
        assert class_iou[k] == (both / either if either else 0)
    assert class_iou[3] == 0 and np.isnan(scores(confusion(prediction, decided_truth, CLASSES), "voc")[3])
