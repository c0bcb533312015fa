"""Dropout in training whose draws follow from a number of every sample: the same in any batch and on any process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sample_dropout(x: Tensor, draws: Sequence[int], rate: float, *, layer: int = 0) -> Tensor:
    """Zero a share `rate` of every sample's values and scale the rest up; x: [B, F, h, w].

    draws: a number for each of the B samples; its values are drawn in the order of rows, columns and features.
    layer: which of a network's dropouts this is. A device draws by another generator than a CPU.
    """
    batch, features, height, width = x.shape
    if len(draws) != batch:
        raise ValueError(f"{len(draws)} draws, expected one for each of {batch} samples")
    scale = torch.empty(batch, height, width, features, dtype=x.dtype, device=x.device)
    generator = torch.Generator(x.device)
    for number, of_sample in zip(draws, scale, strict=True):
        of_sample.bernoulli_(1 - rate, generator=generator.manual_seed((number + layer) % 2**63))
    return x * scale.mul_(1 / (1 - rate)).permute(0, 3, 1, 2)
