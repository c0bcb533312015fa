"""Sizes and label sampling against their formulas."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from amn_dist.ops.resize import resize_batch, resize_image, resize_label, sample_labels, scaled_size


def test_halves_round_to_even_and_nothing_vanishes() -> None:
    assert scaled_size(97, 99, 0.5) == (48, 50)
    assert scaled_size(1, 3, 0.25) == (1, 1)
    assert scaled_size(375, 500, 1.5) == (562, 750)


@pytest.mark.parametrize("size", [(7, 9), (8, 8), (1, 1), (40, 31)])
def test_labels_come_from_cell_centres(size: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (2, 23, 31), dtype=np.uint8)
    rows, columns = (
        [int((i + 0.5) * n / cells) for i in range(cells)] for n, cells in zip((23, 31), size, strict=True)
    )
    expected = labels[:, rows][:, :, columns]
    assert np.array_equal(sample_labels(torch.from_numpy(labels), size), expected)
    assert np.array_equal([resize_label(label, size) for label in labels], expected)


def test_labels_as_pillow_samples_them() -> None:
    label = np.random.default_rng(1).integers(0, 256, (96, 128), dtype=np.uint8)
    for height, width in ((24, 32), (12, 16), (37, 55)):
        expected = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)
        assert np.array_equal(resize_label(label, (height, width)), expected)


def test_images_keep_their_axes() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 10:, 1] = 200
    resized = resize_image(image, (30, 40))
    assert resized.shape == (30, 40, 3) and resized.dtype == np.uint8
    assert (resized[:, 25:, 1] == 200).all() and not resized[:, :15].any() and not resized[..., 0].any()


@pytest.mark.parametrize("size", [(60, 81), (38, 51), (57, 76), (19, 25), (38, 77), (1, 3), (150, 20)])
def test_batches_are_resized_as_pillow_does(size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 38, 51, 3), dtype=np.uint8)
    images[1] = np.where(images[1] > 127, 255, 0)  # overshoots that clamp
    resized = resize_batch(torch.from_numpy(images), size)
    assert np.array_equal(resized, [resize_image(image, size) for image in images])


@given(
    before=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    after=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 2**32 - 1),
    hard=st.booleans(),
)
@example(before=(33, 16), after=(16, 8), seed=0, hard=False)
def test_any_batch_is_resized_as_pillow_does(
    before: tuple[int, int], after: tuple[int, int], seed: int, hard: bool
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (2, *before, 3), dtype=np.uint8)
    images = np.where(images > 127, 255, 0).astype(np.uint8) if hard else images
    assert np.array_equal(
        resize_batch(torch.from_numpy(images), after), [resize_image(image, after) for image in images]
    )


@given(
    before=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    after=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_labels_come_from_cell_centres(before: tuple[int, int], after: tuple[int, int], seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 256, (1, *before), dtype=np.uint8)
    rows, columns = ([int((i + 0.5) * n / m) for i in range(m)] for n, m in zip(before, after, strict=True))
    expected = labels[:, rows][:, :, columns]
    assert np.array_equal(sample_labels(torch.from_numpy(labels), after), expected)
    assert np.array_equal(resize_label(labels[0], after), expected[0])
