"""The network of a Fit as an engine trains it."""

from __future__ import annotations

import torch
from torch import nn

from amn_dist.interfaces import Fit
from amn_dist.ops.allocator import keep_freed_memory


def training_network(fit: Fit, device: torch.device) -> nn.Module:
    """A new network on its device, with the memory that makes a CPU fast."""
    network = fit.network()
    if device.type == "cpu":
        keep_freed_memory()
    return network.to(device).train()
