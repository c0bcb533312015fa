"""Large photographs: Maps and predictions work on them at a smaller size, and hand out what has theirs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from amn_dist.ops.resize import resize_image, resize_label
from amn_dist.records import CoarseMaps, Sample, grid_size
from amn_dist.shards.format import kind_of

WORKING_PIXELS, WORKING_VALUES = 2**22, 2**26
"""Most pixels, and most probabilities (pixels times classes), of a photograph that memory is held for; a larger one is
worked on at a smaller size."""


def working_pixels(num_classes: int) -> int:
    """Most pixels of a photograph that memory is held for."""
    return min(WORKING_PIXELS, WORKING_VALUES // num_classes)


def working_size(size: tuple[int, int], num_classes: int) -> tuple[int, int]:
    """The size (H, W) a photograph is worked on at: its own, or the largest of its shape that memory is held for."""
    share = math.sqrt(working_pixels(num_classes) / (size[0] * size[1]))
    return size if share >= 1 else (max(int(size[0] * share), 1), max(int(size[1] * share), 1))


def bounded(sample: Sample) -> Sample:
    """A sample at its working size, with what earlier stages made of it, which remembers its own size."""
    size = (sample.image.shape[0], sample.image.shape[1])
    work_size = working_size(size, len(sample.tags) + 1)
    if work_size == size or not sample.image.shape[2]:  # counts are of labels alone, at their own size
        return sample
    joined = {name: resized(values, work_size) for name, values in sample.joined.items()}
    return replace(sample, image=resize_image(sample.image, work_size), joined=joined, size=size)


def full_size(sample: Sample) -> tuple[int, int]:
    """The size (H, W) of a sample's photograph."""
    return sample.size or (sample.image.shape[0], sample.image.shape[1])


def enlarged(field: str, values: np.ndarray | CoarseMaps, sample: Sample) -> np.ndarray | CoarseMaps:
    """A field that was made of a sample, at the size its photograph asks for."""
    if isinstance(values, CoarseMaps):
        return values if sample.size is None else replace(values, size=grid_size(*sample.size))
    if sample.size is None or kind_of(field) not in ("labels", "regions", "maps"):
        return values
    return resized(values, sample.size)


def resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels [H, W], or stride-4 maps [K, h, w], of a photograph that is given the size (H, W)."""
    if values.ndim == 2:
        return resize_label(values, size)
    grid = grid_size(*size)
    if values.ndim != 3 or not len(values):
        return np.zeros((0, *grid), values.dtype) if values.ndim == 3 else values
    maps = torch.from_numpy(values.astype(np.float32))[None]
    fitted = functional.interpolate(maps, size=grid, mode="bilinear", align_corners=False)
    return fitted[0].numpy().astype(values.dtype)
