"""Confident seeds against two plain CRF runs."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from amn_dist.ops.crf.dense import dense_crf, hard_label_unary
from amn_dist.ops.resize import resize_image
from amn_dist.ops.seeds import confident_seed, threshold_labels


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return resize_image(astronaut(), (60, 64))


def blobs(count: int) -> np.ndarray:
    """Smooth bumps f32[count, 60, 64] in [0, 1], side by side."""
    y, x = np.mgrid[:60, :64]
    centres = np.linspace(12, 52, count)
    return np.stack([np.exp(-((y - 30) ** 2 + (x - c) ** 2) / 300) for c in centres]).astype(np.float32)


@pytest.mark.parametrize("classes", [[1], [2, 9, 20]])
def test_two_runs_decide(image: np.ndarray, classes: list[int]) -> None:
    maps, names = blobs(len(classes)), np.array([0, *classes])
    seed = confident_seed(image, maps, np.array(classes, np.uint8), foreground=0.5, background=0.1)
    seeds = {}
    for kind, threshold in (("foreground", 0.5), ("background", 0.1)):
        labels = np.where(maps.max(0) > threshold, maps.argmax(0) + 1, 0)
        seeds[kind] = names[dense_crf(image, hard_label_unary(labels, len(names))).argmax(0)]
    for y, x in np.ndindex(60, 64):
        claimed, cleared = seeds["foreground"][y, x], seeds["background"][y, x]
        assert seed[y, x] == (claimed if claimed > 0 else 0 if cleared == 0 else 255)
    assert seed.dtype == np.uint8 and set(np.unique(seed)) == {0, 255, *classes}


def test_ties_go_to_background() -> None:
    maps = np.array([0.25, 0.5], np.float32).reshape(1, 1, 2)
    assert threshold_labels(maps, 0.25).tolist() == [[0, 1]]
    assert threshold_labels(np.concatenate([maps, maps]), 0.25).tolist() == [[0, 1]]


def test_no_classes_is_background(image: np.ndarray) -> None:
    seed = confident_seed(
        image, np.zeros((0, 60, 64), np.float32), np.zeros(0, np.uint8), foreground=0.3, background=0.1
    )
    assert seed.shape == (60, 64) and seed.dtype == np.uint8 and not seed.any()


def test_torch_gives_torch(image: np.ndarray) -> None:
    maps, classes = blobs(1), np.array([7], np.uint8)
    expected = confident_seed(image, maps, classes, foreground=0.5, background=0.1)
    tensors = [torch.from_numpy(array) for array in (image, maps, classes)]
    seed = confident_seed(*tensors, foreground=0.5, background=0.1)
    assert isinstance(seed, torch.Tensor) and np.array_equal(seed.numpy(), expected)
