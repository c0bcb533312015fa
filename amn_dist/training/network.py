"""The network of a Fit as an engine trains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from amn_dist.interfaces import Fit
from amn_dist.models.allocator import keep_freed_memory
from amn_dist.models.precision import resolve_precision

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import EngineSection


def training_network(fit: Fit, section: EngineSection, device: torch.device) -> nn.Module:
    """A new network on its device, with the convolutions and the memory that make float32 fast on a CPU."""
    network = fit.network()
    if device.type == "cpu":
        keep_freed_memory()
        if resolve_precision(section.precision) == torch.float32 and winograd_asked(section.winograd):
            from amn_dist.models.winograd import use_winograd  # needs numba, which devices do not

            use_winograd(network)
    return network.to(device).train()


def winograd_asked(setting: bool | str) -> bool:
    """What `engine.winograd` means here. auto: not with AVX512, whose direct sum is faster (docs/architecture.md)."""
    return torch.backends.cpu.get_cpu_capability() != "AVX512" if setting == "auto" else bool(setting)
