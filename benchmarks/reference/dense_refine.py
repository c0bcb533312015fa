"""Superpixel refinement as published: one indicator map a region, resized to the grid, then matrix products (icd 3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-5


def dense_refine(score: Tensor, tags: Tensor, regions: Tensor) -> Tensor:
    """Refined scores f32[B, K, h, w]; regions int64[B, H, W] from 0."""
    planes = functional.one_hot(regions, int(regions.max()) + 1).permute(0, 3, 1, 2).to(score.dtype)
    member = functional.interpolate(planes, size=score.shape[-2:], mode="bilinear", align_corners=True).flatten(2)
    mass = member.sum(2).clamp(min=EPSILON)[:, None]
    z = (score * tags[:, :, None, None]).flatten(2)
    up, down = z.clamp(min=0), z.clamp(max=0)
    share = up / z.amax(1, keepdim=True).clamp(min=EPSILON)
    votes, shares, ups, downs = ((part @ member.transpose(1, 2)) for part in (z.sign(), share, up, down))
    winner = functional.one_hot((shares / mass).argmax(1), z.shape[1]).transpose(1, 2).bool()
    foreground = winner & (votes.amax(1, keepdim=True) > EPSILON) & tags.bool()[:, :, None]
    return (torch.where(foreground, ups, downs) / mass @ member).view(score.shape)
