"""Exported networks are compared with ours pixel by pixel, and figures of networks that differ do not count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import exported

IMAGES = [np.zeros((4, 6, 3), np.uint8), np.full((5, 3, 3), 9, np.uint8)]


def one(image: np.ndarray) -> np.ndarray:
    """Probabilities of two classes that hang on the pixels."""
    share = np.full(image.shape[:2], 0.5 + image[0, 0, 0] / 100, np.float32)
    return np.stack([share, 1 - share])


def other(image: np.ndarray) -> np.ndarray:
    """As one, but for a pixel of the second image."""
    probabilities = one(image)
    if image.any():
        probabilities[:, 2, 1] = (0.4, 0.6)
    return probabilities


def test_the_largest_difference_and_the_labels_that_change() -> None:
    assert exported.differences(one, one, IMAGES) == {"largest": 0.0, "labels_changed": 0.0}
    found = exported.differences(one, other, IMAGES)
    assert found["largest"] == pytest.approx(0.19) and found["labels_changed"] == 1 / (4 * 6 + 5 * 3)


def test_photographs_are_taken_evenly(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for number in range(4):
        Image.new("L", (10 + number, 8)).save(tmp_path / "deep" / f"{number}.jpg")
    assert [image.shape for image in exported.photographs(tmp_path, 2)] == [(8, 10, 3), (8, 12, 3)]
    with pytest.raises(ValueError, match="found 4 photographs"):
        exported.photographs(tmp_path, 5)


def test_networks_that_differ_have_no_figures() -> None:
    with pytest.raises(ValueError, match=r"onnx: found probabilities that differ by 0\.19"):
        exported.measured({"ours": one, "onnx": other}, IMAGES, 1)
    assert exported.measured({"ours": one, "pt2": one}, IMAGES, 1)["agreement"]["pt2"]["largest"] == 0.0
