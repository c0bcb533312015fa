"""Which parameters learn at which rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import FitSection


def backbone_and_head(network: nn.Module, section: FitSection) -> list[dict[str, Any]]:
    """Two optimiser groups: trained backbone parameters at lr, every other trained parameter at lr_head."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if name.startswith("backbone.")], "lr": section.lr},
        {"params": [p for name, p in named if not name.startswith("backbone.")], "lr": section.lr_head},
    ]
    return [{**group, "weight_decay": section.weight_decay} for group in groups if group["params"]]
