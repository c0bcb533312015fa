"""Group norm as networks hold it."""

from __future__ import annotations

from torch import Tensor, nn

from amn_dist.ops.group_norm import group_norm


class GroupNorm(nn.GroupNorm):
    """Torch's layer, with sums that keep their digits in channels_last on a CPU too."""

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
