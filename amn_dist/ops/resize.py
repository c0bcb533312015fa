"""Resizing as the published loaders do it: Pillow for images, cell centres for labels (amn 5.3, 10.6, 10.7)."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Size of an image at a scale: halves round to even, at least 1 pixel."""
    return max(round(height * scale), 1), max(round(width * scale), 1)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Image uint8[H, W, 3] to (height, width) by Pillow's bicubic filter, antialiased when it shrinks."""
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def cell_centres(length: int, cells: int) -> np.ndarray:
    """Index of the pixel at the centre of each of `cells` equal cells of a line: floor((i + 0.5) * length / cells)."""
    return ((2 * np.arange(cells) + 1) * length) // (2 * cells)


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels [H, W] to (h, w), each cell taking the label at its centre."""
    return label[np.ix_(cell_centres(label.shape[0], size[0]), cell_centres(label.shape[1], size[1]))]


def sample_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels [B, H, W] to [B, h, w] on their device, each cell taking the label at its centre."""
    rows = torch.from_numpy(cell_centres(labels.shape[-2], size[0])).to(labels.device)
    columns = torch.from_numpy(cell_centres(labels.shape[-1], size[1])).to(labels.device)
    return labels.index_select(-2, rows).index_select(-1, columns)
