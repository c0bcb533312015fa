"""Photographs stretched to whole patches (clip 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from amn_dist.ops.resize import resize_batch, resize_image
from amn_dist.ops.transfer import all_to_device, to_device


def patch_size(size: tuple[int, ...], patch: int = 16) -> tuple[int, int]:
    """(H, W) of an image stretched to whole patches."""
    height, width = size
    return -(-height // patch) * patch, -(-width // patch) * patch


def resized(images: Sequence[np.ndarray], device: torch.device, patch: int = 16) -> Tensor:
    """Images uint8[H, W, 3] stretched to whole patches by Pillow's bicubic filter, on a device: uint8[B, H', W', 3]."""
    target = patch_size(images[0].shape[:2], patch)
    if device.type == "cpu":
        return to_device(np.stack([_stretched(image, target) for image in images]), device)
    return torch.cat([resize_batch(image[None], target) for image in all_to_device(images, device)])


def _stretched(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return image if image.shape[:2] == size else resize_image(image, size)
