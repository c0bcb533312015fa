"""Sums over all processes of a gang inside a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


class _RankSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Every rank's loss is a part of the global one, and each depends on this rank's values.
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


def rank_sum(values: Tensor) -> Tensor:
    """Sum of a tensor over all ranks, differentiable; the tensor itself without a gang. Every rank calls it."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return values
    return _RankSum.apply(values)
