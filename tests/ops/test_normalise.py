"""Network inputs by hand."""

import numpy as np
import torch

from amn_dist.ops.normalise import _pairs_on_device, caffe_input, imagenet_input, imagenet_pairs

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


def test_batches() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    for transform in (imagenet_input, caffe_input):
        assert np.array_equal(transform(batch), np.stack([transform(image) for image in batch]))


def test_pairs_are_images_beside_their_mirror_images() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    pairs = imagenet_pairs(torch.from_numpy(batch))
    expected = torch.from_numpy(imagenet_input(batch))
    assert pairs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pairs[::2], expected) and torch.equal(pairs[1::2], expected.flip(-1))
    on_device = _pairs_on_device(torch.from_numpy(batch))
    assert torch.equal(on_device.flatten(0, 1).permute(0, 3, 1, 2), pairs)
