"""Images at every scale beside their mirror images, as all multi-scale inference of the field sees them.

A batch holds pairs: image 0, its mirror image, image 1, its mirror image, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from amn_dist.ops.normalise import input_pairs
from amn_dist.ops.resize import resize_batch, resize_image, scaled_size
from amn_dist.ops.transfer import to_device


def flip_pairs(
    images: Sequence[np.ndarray], scale: float = 1.0, *, colour: str, device: torch.device | str = "cpu"
) -> Tensor:
    """Images uint8[H, W, 3] of one size, resized as by Pillow's bicubic filter and normalised: f32[2B, 3, H', W'].

    colour: as the network's backbone wants them.
    """
    height, width = images[0].shape[:2]
    size = scaled_size(height, width, scale)
    if torch.device(device).type == "cpu":
        resized = images if size == (height, width) else [resize_image(image, size) for image in images]
        return input_pairs(torch.from_numpy(np.stack(resized)), colour)
    return input_pairs(resize_batch(to_device(np.stack(images), device), size), colour)


def sum_flips(maps: Tensor) -> Tensor:
    """Sum of the maps of every image and of its mirror image: pairs [2B, C, h, w] -> f32[B, C, h, w]."""
    plain, flipped = maps.float().unflatten(0, (-1, 2)).unbind(1)
    return plain + flipped.flip(-1)


def maps_over_scales(
    network: Callable[[Tensor, slice, int], Tensor],
    images: Sequence[np.ndarray],
    scales: Sequence[float],
    *,
    colour: str,
    device: torch.device,
    batch_pixels: int = 1,
) -> list[list[Tensor]]:
    """Flip-summed maps f32[C, h, w] of every image at every scale: result[image][scale].

    network: (pairs, which images they are of, index of the scale) to maps [2B, C, h, w]. images: uint8[H, W, 3], all
    of one size. colour: as the network's backbone wants them. batch_pixels: pixels of resized images in one call, which
    takes one image at least.
    """
    result: list[list[Tensor]] = [[] for _ in images]
    height, width = images[0].shape[:2]
    pixels = None if device.type == "cpu" else to_device(np.stack(images), device)
    for index, scale in enumerate(scales):
        step = max(batch_pixels // prod(scaled_size(height, width, scale)), 1)
        for begin in range(0, len(images), step):
            part = slice(begin, begin + step)
            if pixels is None:
                pairs = flip_pairs(images[part], scale, colour=colour)
            else:
                pairs = input_pairs(resize_batch(pixels[part], scaled_size(height, width, scale)), colour)
            for image_maps, maps in zip(result[part], sum_flips(network(pairs, part, index)), strict=True):
                image_maps.append(maps)
    return result
