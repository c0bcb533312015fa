"""Photographs to network inputs (amn 5.2)."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import torch
from numba import njit
from torch import Tensor

from amn_dist.ops.transfer import to_device

MEAN = (0.485, 0.456, 0.406)
"""ImageNet mean of RGB in 0..1."""
DEVIATION = (0.229, 0.224, 0.225)
"""ImageNet deviation of RGB in 0..1."""
CAFFE_MEAN = (104.008, 116.669, 122.675)
"""Mean of BGR in 0..255 that Caffe-style networks subtract."""

CENTRE = 127.0
"""Mean of every colour in 0..255 that ICD's network subtracts."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of RGB in 0..1 that CLIP was trained with."""
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Deviation of RGB in 0..1 that CLIP was trained with."""

COLOURS: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "imagenet": (np.array(MEAN) * 255, np.array(DEVIATION) * 255),
    "caffe": (np.array(CAFFE_MEAN), np.ones(3)),
    "centred": (np.full(3, CENTRE), np.ones(3)),
    "clip": (np.array(CLIP_MEAN) * 255, np.array(CLIP_DEVIATION) * 255),
}
"""Inputs that networks want: mean and deviation of pixels in 0..255, of RGB unless is_bgr (amn 5.2, icd 1.3,
clip 3.1)."""


def is_bgr(colour: str) -> bool:
    """Whether an input has its channels in the order blue, green, red."""
    return colour == "caffe"


def network_input(image: np.ndarray, colour: str) -> np.ndarray:
    """RGB uint8[..., H, W, 3] to f32[..., 3, H, W] as a network wants it. colour: of COLOURS."""
    inputs = {"imagenet": imagenet_input, "caffe": caffe_input, "centred": centred_input, "clip": clip_input}
    return inputs[colour](image)


def centred_input(image: np.ndarray) -> np.ndarray:
    """RGB uint8[..., H, W, 3] to f32[..., 3, H, W] minus CENTRE."""
    return np.ascontiguousarray(np.moveaxis(image.astype(np.float32) - CENTRE, -1, -3))


def imagenet_input(image: np.ndarray) -> np.ndarray:
    """RGB uint8[..., H, W, 3] to f32[..., 3, H, W], normalised in float64."""
    return _standardised(image, MEAN, DEVIATION)


def clip_input(image: np.ndarray) -> np.ndarray:
    """RGB uint8[..., H, W, 3] to f32[..., 3, H, W] as CLIP was trained, normalised in float64."""
    return _standardised(image, CLIP_MEAN, CLIP_DEVIATION)


def input_pairs(images: Tensor, colour: str = "imagenet") -> Tensor:
    """RGB uint8[B, H, W, 3] to the values of network_input, each image before its mirror image.

    Returns f32[2B, 3, H, W] in channels_last, on the images' device.
    """
    number, height, width, _ = images.shape
    if images.device.type == "cpu":
        pairs = torch.empty(number, 2, height, width, 3)
        _fill_pairs(images.numpy(), _table(colour), _order(colour), pairs.numpy())
    else:
        pairs = _pairs_on_device(images, colour)
    return pairs.flatten(0, 1).permute(0, 3, 1, 2)


def input_batch(images: Tensor, colour: str) -> Tensor:
    """RGB uint8[B, H, W, 3] to the values of network_input, f32[B, 3, H, W] in channels_last, on the images' device."""
    if images.device.type == "cpu":
        values = torch.from_numpy(network_input(images.numpy(), colour))
        return values.contiguous(memory_format=torch.channels_last)
    return _looked_up(images, colour).permute(0, 3, 1, 2)


def crop_input(crops: Tensor, boxes: Tensor, colour: str) -> Tensor:
    """Crops uint8[B, 3, S, S], channels in the order that a network wants, to f32[B, 3, S, S], on their device.

    boxes: int64[B, 4], top, left, height and width of the photograph in each crop; beyond it the result is 0.
    """
    mean, deviation = _moments(colour, crops.device)
    top, left, height, width = boxes[:, :, None].unbind(1)
    rows, columns = (torch.arange(side, device=crops.device) for side in crops.shape[-2:])
    in_rows, in_columns = (rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width)
    inside = in_rows[:, None, :, None] & in_columns[:, None, None]
    return torch.where(inside, (crops.float() - mean) / deviation, 0)


@cache
@torch.inference_mode(False)
def _moments(colour: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation f32[3, 1, 1] of an input, on a device."""
    mean, deviation = (torch.from_numpy(values.astype(np.float32))[:, None, None] for values in COLOURS[colour])
    return mean.to(device), deviation.to(device)


def caffe_input(image: np.ndarray) -> np.ndarray:
    """RGB uint8[..., H, W, 3] to BGR f32[..., 3, H, W] minus the mean."""
    shifted = image[..., ::-1].astype(np.float32) - np.asarray(CAFFE_MEAN, np.float32)
    return np.ascontiguousarray(np.moveaxis(shifted, -1, -3))


def _standardised(image: np.ndarray, mean: tuple[float, ...], deviation: tuple[float, ...]) -> np.ndarray:
    scaled = (image / 255.0 - mean) / deviation
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3), np.float32)


@cache
def _table(colour: str) -> np.ndarray:
    """Input of every value 0..255 in every channel of a network's input: f32[256, 3]."""
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 1, 3)
    return np.ascontiguousarray(network_input(values, colour)[..., 0].T)


def _order(colour: str) -> tuple[int, int, int]:
    """Channels of an RGB image in the order of a network's input."""
    return (2, 1, 0) if is_bgr(colour) else (0, 1, 2)


def _pairs_on_device(images: Tensor, colour: str) -> Tensor:
    """What _fill_pairs writes, in torch: f32[B, 2, H, W, 3]."""
    values = _looked_up(images, colour)
    return torch.stack([values, values.flip(2)], dim=1)


def _looked_up(images: Tensor, colour: str) -> Tensor:
    """The table's values of images uint8[B, H, W, 3] on their device: f32[B, H, W, 3]."""
    table = _device_table(colour, images.device)
    columns = [table[:, to][images[..., channel].int()] for to, channel in enumerate(_order(colour))]
    return torch.stack(columns, dim=-1)


@lru_cache(maxsize=16)
def _device_table(colour: str, device: torch.device) -> Tensor:
    return to_device(_table(colour), device)


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_pairs(images, table, order, out):  # type: ignore[no-untyped-def]
    """out[:, 0]: images looked up in the table, channels in this order; out[:, 1]: the same from right to left."""
    number, height, width, _ = images.shape
    for b in range(number):
        for y in range(height):
            for x in range(width):
                for c in range(3):
                    value = table[images[b, y, x, order[c]], c]
                    out[b, 0, y, x, c] = value
                    out[b, 1, y, width - 1 - x, c] = value
