"""Multi-scale inference as published, one image at a time in NCHW float32 (amn 1.2, 1.4, 1.5).

Every scale and its mirror image is a batch of two; all classes are resized, coarse and to full size, before the tagged
ones are chosen; the maps end in the host's memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.ops.resize import resize_label

EPSILON = 1e-5
Maps = tuple[Tensor, Tensor]
"""coarse f32[K, h, w], fine f32[K, H, W], on the CPU."""


@torch.no_grad()
def cam_maps(network: nn.Module, pairs: Sequence[Tensor], tags: Tensor, size: tuple[int, int]) -> Maps:
    """A classifier's maps. pairs: f32[2, 3, H s, W s] a scale. tags: [C-1]. size: (H, W)."""
    height, width = size
    device = next(network.parameters()).device
    maps = [_flipped_back(network.maps(pair.to(device))).sum(0) for pair in pairs]  # type: ignore[operator]
    whole = (-(-height // 16) * 16, -(-width // 16) * 16)
    coarse = resized(maps, _grid(size)).sum(0)
    fine = resized(maps, whole).sum(0)[:, :height, :width]
    keys = torch.nonzero(tags.to(device))[:, 0]
    return _over_peak(coarse[keys]), _over_peak(fine[keys])


@torch.no_grad()
def amn_maps(network: nn.Module, pairs: Sequence[Tensor], tags: Tensor, seed: np.ndarray, *, dropout: bool) -> Maps:
    """AMN's maps, background dropped. seed: uint8[H, W], the first seed."""
    device = next(network.parameters()).device
    condition = tags.to(device)[None].expand(2, -1)
    logits = [_flipped_back(network(pair.to(device), condition, dropout=dropout)).mean(0) for pair in pairs]
    keys = torch.nonzero(tags.to(device))[:, 0] + 1
    found = []
    for labels in (resize_label(seed, _grid(seed.shape)), seed):
        chance = resized(logits, labels.shape).mean(0).softmax(0)[torch.cat([keys.new_zeros(1), keys])]
        low, high = chance.amin((1, 2), keepdim=True), chance.amax((1, 2), keepdim=True)
        stretched = (chance - low) / (high - low + EPSILON)
        decided = torch.from_numpy(labels == 0).to(device)
        found.append(torch.where(decided, chance, stretched)[1:].cpu())
    return found[0], found[1]


@torch.no_grad()
def edge_map(network: nn.Module, pair: Tensor) -> Tensor:
    """Edge probability f32[h, w] of an image beside its mirror image f32[2, 3, H, W]; the network has both heads."""
    edge, _ = network(pair.to(next(network.parameters()).device))
    return torch.sigmoid(_flipped_back(edge).mean(0))[0].cpu()


def resized(maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Maps of every scale at one size, f32[S, C, h, w]."""
    return torch.stack(
        [functional.interpolate(m[None], tuple(size), mode="bilinear", align_corners=False)[0] for m in maps]
    )


def _grid(size: Sequence[int]) -> tuple[int, int]:
    return (size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1


def _flipped_back(pair: Tensor) -> Tensor:
    return torch.stack([pair[0], pair[1].flip(-1)])


def _over_peak(maps: Tensor) -> Tensor:
    return (maps / (functional.adaptive_max_pool2d(maps, (1, 1)) + EPSILON)).cpu()
