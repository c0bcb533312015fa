"""signed.py's labels and activations in torch, for maps on a device (icd 5)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.ops.signed import EPSILON
from amn_dist.records import IGNORE, grid_size

Decided = tuple[Tensor, Tensor, Tensor]
"""Activation on the stride-4 grid f32[K, h, w] and at the image's size f32[K, H, W], labels uint8[H, W]."""


def decide(cam: Tensor, signed: Tensor, classes: Tensor) -> Decided:
    """What signed maps say, from CAM and signed logits f32[K, H, W] and classes uint8[K] on one device."""
    size = (signed.shape[1], signed.shape[2])
    grid = grid_size(*size)
    if not len(classes):
        return signed.new_zeros(0, *grid), signed, torch.zeros(size, dtype=torch.uint8, device=signed.device)
    coarse = [
        functional.interpolate(maps[None], size=grid, mode="bilinear", align_corners=False)[0] for maps in (cam, signed)
    ]
    return activation(*coarse), activation(cam, signed), labels(cam, signed, classes)


def labels(cam: Tensor, signed: Tensor, classes: Tensor) -> Tensor:
    """signed_labels of at least one class, uint8[H, W]."""
    foreground = (positive_part(signed) > EPSILON).any(0)
    background = (positive_part(-signed) > EPSILON).all(0)
    evidence = agreement(cam, signed)
    undecided = foreground == background
    if len(classes) > 1:
        undecided = undecided | (foreground & (_spread(evidence) <= EPSILON))
    decided = torch.where(foreground, classes[evidence.argmax(0)], 0)
    return torch.where(undecided, IGNORE, decided).to(torch.uint8)


def activation(cam: Tensor, signed: Tensor) -> Tensor:
    """signed_activation of maps f32[K, H, W]."""
    parts = positive_part(signed)
    if len(signed) < 2:
        return parts
    evidence = agreement(cam, signed)
    places = torch.arange(len(signed), device=signed.device)[:, None, None]
    contested = ((parts > EPSILON).sum(0) > 1) & (_spread(evidence) > EPSILON)
    return torch.where(contested & (places != evidence.argmax(0)), 0, parts)


def agreement(cam: Tensor, signed: Tensor) -> Tensor:
    """Product f32[K, H, W] of CAM, stretched to [0, 1] over all classes together, and the positive signed parts."""
    seen = cam.clamp(min=0)
    low, high = seen.amin(), seen.amax()
    return (seen - low) / (high - low).clamp(min=EPSILON) * positive_part(signed)


def positive_part(signed: Tensor) -> Tensor:
    """Positive part of each map over its peak, f32[K, H, W] in [0, 1]."""
    positive = signed.clamp(min=0)
    return positive / positive.amax((1, 2), keepdim=True).clamp(min=EPSILON)


def _spread(evidence: Tensor) -> Tensor:
    return evidence.amax(0) - evidence.amin(0)
