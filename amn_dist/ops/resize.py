"""Resizing as the published loaders do it: Pillow for images, cell centres for labels (amn 1.2, 5.3)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from amn_dist.ops.transfer import to_device


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Size of an image at a scale: halves round to even, at least 1 pixel."""
    return max(round(height * scale), 1), max(round(width * scale), 1)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Image uint8[H, W, 3] to (height, width) by Pillow's bicubic filter, antialiased when it shrinks."""
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def resize_batch(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images uint8[B, H, W, 3] to (height, width) as resize_image does, on their device: uint8[B, h, w, 3].

    Weights, passes and rounding are Pillow's, and products in float64 add up exactly: the values are the same.
    """
    planes = images.permute(0, 3, 1, 2)
    axes = (-2, -1) if _columns_first(planes.shape[-2:], size) else (-1, -2)
    for axis in axes:
        if size[axis] != planes.shape[axis]:
            matrix = _bicubic_matrix(planes.shape[axis], size[axis], images.device)
            planes = _rounded(planes.double() @ matrix.T if axis == -1 else matrix @ planes.double())
    return planes.permute(0, 2, 3, 1).to(torch.uint8)


def _columns_first(before: tuple[int, ...], after: tuple[int, int]) -> bool:
    """Whether Pillow resizes columns before lines: from version 13 on where the height shrinks far more."""
    shrinks = [here - there for here, there in zip(before, after, strict=True)]
    return int(PIL.__version__.split(".")[0]) >= 13 and shrinks[0] > max(0, 2 * shrinks[1])


def _rounded(values: Tensor) -> Tensor:
    return torch.floor(values + 0.5).clamp(0, 255)


@lru_cache(maxsize=512)
def _bicubic_matrix(length: int, cells: int, device: torch.device) -> Tensor:
    """Pillow's bicubic weights of `length` pixels for each of `cells` new ones: f64[cells, length] (a = -0.5).

    A line that shrinks is filtered over a support as much wider as it shrinks. Weights are multiples of 2^-22.
    """
    step = length / cells
    stretch = max(step, 1.0)
    centre = (np.arange(cells)[:, None] + 0.5) * step
    first = np.maximum(np.floor(centre - 2 * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum(np.floor(centre + 2 * stretch + 0.5).astype(np.int64), length)
    pixels = first + np.arange(math.ceil(4 * stretch) + 1)
    weights = np.where(pixels < last, _bicubic((pixels - centre + 0.5) / stretch), 0.0)
    # Summed pixel after pixel, in the order of the line.
    totals = np.add.accumulate(weights, axis=1)[:, -1:]
    matrix = np.zeros((cells, length))
    rows = np.broadcast_to(np.arange(cells)[:, None], pixels.shape)
    inside = pixels < last
    matrix[rows[inside], pixels[inside]] = (np.round(weights / totals * 2**22) / 2**22)[inside]
    return to_device(matrix, device)


def _bicubic(distance: np.ndarray) -> np.ndarray:
    """The cubic kernel with a = -0.5 at distances in pixels."""
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def cell_centres(length: int, cells: int) -> np.ndarray:
    """Index of the pixel at the centre of each of `cells` equal cells of a line: floor((i + 0.5) * length / cells)."""
    return ((2 * np.arange(cells) + 1) * length) // (2 * cells)


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels [H, W] to (h, w), each cell taking the label at its centre."""
    rows, columns = (cell_centres(length, cells) for length, cells in zip(label.shape, size, strict=True))
    return label.take(rows, 0).take(columns, 1)


def sample_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels [B, H, W] to [B, h, w] on their device, each cell taking the label at its centre."""
    rows = _centre_index(labels.shape[-2], size[0], labels.device)
    columns = _centre_index(labels.shape[-1], size[1], labels.device)
    return labels.index_select(-2, rows).index_select(-1, columns)


@lru_cache(maxsize=64)
def _centre_index(length: int, cells: int, device: torch.device) -> Tensor:
    """cell_centres as int64[cells] on a device, copied there once: a copy from plain memory makes the host wait."""
    with torch.inference_mode(False):
        return torch.from_numpy(cell_centres(length, cells)).to(device)


def upsample(coarse: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Stride-4 maps [K, h, w] to the image, f32[K, H, W]: bilinear by 4, cropped (as the walk's maps, amn 1.5)."""
    height, width = size
    if not len(coarse):
        return np.zeros((0, height, width), np.float32)
    maps = torch.from_numpy(coarse.astype(np.float32))[None]
    fine = functional.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=False)
    return fine[0, :, :height, :width].numpy()
