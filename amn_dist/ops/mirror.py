"""An image at one scale beside its mirror image, as every multi-scale inference of the field sees it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from amn_dist.ops.normalise import imagenet_input
from amn_dist.ops.resize import resize_image, scaled_size


def mirrored(image: np.ndarray, scale: float = 1.0, *, device: torch.device | str = "cpu") -> Tensor:
    """Image uint8[H, W, 3] resized by Pillow bicubic and normalised, with its mirror image: f32[2, 3, H', W']."""
    height, width = image.shape[:2]
    size = scaled_size(height, width, scale)
    resized = image if size == (height, width) else resize_image(image, size)
    x = torch.from_numpy(imagenet_input(resized))
    return torch.stack([x, x.flip(-1)]).to(device, memory_format=torch.channels_last)


def flip_sum(maps: Tensor) -> Tensor:
    """Sum of the maps of an image and of its mirror image: [2, C, h, w] -> f32[C, h, w]."""
    return (maps[0] + maps[1].flip(-1)).float()
