"""What is drawn for benchmarks that need no data set."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.interfaces import Fit
from amn_dist.records import IGNORE, Batch


def training_batch(fit: Fit, count: int, classes: int, *, seed: int = 1) -> Batch:
    """Random images with blocks of labels, a tenth of them without one; two classes an image."""
    random = torch.Generator().manual_seed(seed)
    side = fit.rule.size
    image = torch.randn(count, 3, side, side, generator=random).contiguous(memory_format=torch.channels_last)
    blocks = torch.randint(0, 3, (count, 1, 8, 8), generator=random).float()
    label = functional.interpolate(blocks, size=side)[:, 0].to(torch.uint8)
    label[torch.rand(label.shape, generator=random) < 0.1] = IGNORE
    return Batch(tuple(map(str, range(count))), tuple(range(count)), image, drawn_tags(count, classes), label)


def drawn_tags(count: int, classes: int) -> Tensor:
    """f32[count, classes - 1], the first two classes on."""
    tags = torch.zeros(count, classes - 1)
    tags[:, :2] = 1
    return tags


def walk_scene(height: int, width: int, classes: int, *, device: str) -> tuple[Tensor, Tensor]:
    """Smooth activation and thin edges, as networks give them: f32[K, h, w], f32[h, w]."""
    random = torch.Generator().manual_seed(height * width + classes)
    noise = torch.randn(classes + 1, 1, max(height // 8, 2), max(width // 8, 2), generator=random)
    smooth = functional.interpolate(noise, size=(height, width), mode="bicubic")[:, 0]
    return smooth[:-1].clamp(0, 2).div(2).to(device), torch.exp(-((smooth[-1] * 4) ** 2)).to(device)


def drawn_photo(seed: int, size: tuple[int, int]) -> np.ndarray:
    """A smooth picture with texture and sharp borders, uint8[H, W, 3]; lattices as large as a photograph's."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 8, generator=random)
    middle = torch.rand(1, 3, max(size[0] // 16, 2), max(size[1] // 16, 2), generator=random)
    regions = functional.interpolate(torch.randn(1, 1, 5, 7, generator=random), size=size, mode="bicubic").sign()
    parts = [functional.interpolate(noise, size=size, mode="bicubic") for noise in (coarse, middle)]
    grain = torch.randn(1, 3, *size, generator=random) * 0.01
    picture = 0.6 * parts[0] + 0.2 * parts[1] + 0.1 * regions + grain
    return (picture[0].clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def drawn_seed(size: tuple[int, int], classes: int) -> np.ndarray:
    """A seed of blocks uint8[H, W]: background, classes, and undecided pixels."""
    random = torch.Generator().manual_seed(7)
    blocks = torch.randint(0, classes + 2, (1, 1, 6, 8), generator=random).float()
    labels = functional.interpolate(blocks, size=size)[0, 0].to(torch.uint8)
    labels[labels == classes + 1] = IGNORE
    return labels.numpy()


def smooth_logits(labels: int, seed: int, size: tuple[int, int]) -> Tensor:
    """Random logits at stride 8 of deviation one, smooth over 5 cells, bilinear to full size; f32[labels, H, W]."""
    noise = torch.randn(1, labels, size[0] // 8 + 1, size[1] // 8 + 1, generator=torch.Generator().manual_seed(seed))
    coarse = functional.avg_pool2d(noise, 5, stride=1, padding=2, count_include_pad=False)
    return functional.interpolate(coarse / coarse.std(), size=size, mode="bilinear", align_corners=False)[0]


def two_labellings(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Labels int64[2, H, W] of 0 to 2 that two thresholds leave of smooth maps, as a seed stage refines them."""
    maps = smooth_logits(2, seed, size).numpy()
    planes = [np.concatenate([np.full((1, *size), threshold, np.float32), maps]) for threshold in (0.8, 0.2)]
    return np.stack([plane.argmax(0) for plane in planes])
