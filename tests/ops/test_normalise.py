"""Network inputs by hand."""

import numpy as np
import pytest
import torch

from amn_dist.ops.normalise import (
    COLOURS,
    _pairs_on_device,
    caffe_input,
    imagenet_input,
    input_pairs,
    is_bgr,
    network_input,
)

PIXELS = np.array([[[255, 0, 128], [1, 2, 3]]], np.uint8)


def test_imagenet() -> None:
    x = imagenet_input(PIXELS)
    assert x.shape == (3, 1, 2) and x.dtype == np.float32 and x.flags.c_contiguous
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    assert np.array_equal(x[:, 0, 0], np.array(expected, np.float32))


def test_caffe() -> None:
    x = caffe_input(PIXELS)
    assert x.shape == (3, 1, 2) and x.dtype == np.float32 and x.flags.c_contiguous
    np.testing.assert_allclose(x[:, 0, 1], [3 - 104.008, 2 - 116.669, 1 - 122.675], rtol=1e-6)


@pytest.mark.parametrize("colour", COLOURS)
def test_batches(colour: str) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    assert np.array_equal(network_input(batch, colour), np.stack([network_input(image, colour) for image in batch]))


@pytest.mark.parametrize("colour", COLOURS)
def test_inputs_are_what_their_mean_and_deviation_say(colour: str) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    mean, deviation = COLOURS[colour]
    pixels = batch[..., ::-1] if is_bgr(colour) else batch
    expected = np.moveaxis((pixels - mean) / deviation, -1, 0)
    np.testing.assert_allclose(network_input(batch, colour), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("colour", COLOURS)
def test_pairs_are_images_beside_their_mirror_images(colour: str) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    pairs = input_pairs(torch.from_numpy(batch), colour)
    expected = torch.from_numpy(network_input(batch, colour))
    assert pairs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pairs[::2], expected) and torch.equal(pairs[1::2], expected.flip(-1))
    on_device = _pairs_on_device(torch.from_numpy(batch), colour)
    assert torch.equal(on_device.flatten(0, 1).permute(0, 3, 1, 2), pairs)
