"""A training step as the published loops take it: plain torch, float32, contiguous tensors, one loss a process.

Leading layers that do not learn are run with their graph, then cut (`detach`); the optimiser goes through the
parameters one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from amn_dist.interfaces import Fit
from amn_dist.models.backbones.backbone import Backbone
from amn_dist.records import Batch


class DetachingBackbone(nn.Module):
    """A backbone whose fixed layers record a graph that is cut behind them."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.features, self.spans, self.frozen_taps = backbone.features, backbone.spans, backbone.frozen_taps
        self.channels, self.strides, self.colour = backbone.channels, backbone.strides, backbone.colour

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        taps = []
        for index, span in enumerate(self.spans):
            for layer in span:
                x = self.features[layer](x)
            taps.append(x)
            if index + 1 == self.frozen_taps:
                x = x.detach()
                taps = [tap.detach() for tap in taps]
        return tuple(taps)


def published_step(fit: Fit, batch: Batch) -> Callable[[], float]:
    """A function that takes one step on the batch and returns its loss before the update."""
    network: Any = fit.network().to(batch.image.device).train()
    groups = fit.parameter_groups(network)
    for layer in list(network.backbone.features.children())[1:]:
        layer.requires_grad_(True)
    network.backbone = DetachingBackbone(network.backbone)
    if fit.section.optimiser == "adam":
        optimiser: torch.optim.Optimizer = torch.optim.Adam(groups, foreach=False)
    else:
        momentum = fit.section.weight_decay if fit.section.momentum_slip else fit.section.momentum
        optimiser = torch.optim.SGD(groups, lr=fit.section.lr, momentum=momentum, foreach=False)
    label = batch.label
    plain = Batch(batch.keys, batch.ordinals, batch.image.contiguous(), batch.tags, label)

    def step() -> float:
        optimiser.zero_grad(set_to_none=True)
        loss = fit.losses(network, plain, fit.normalisers(plain))["total"]
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step
