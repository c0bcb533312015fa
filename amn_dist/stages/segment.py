"""DeepLabV2 trained on pseudo-masks (amn 2.6, 3.5, 4.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.models.backbones.backbone import input_colour
from amn_dist.models.deeplab import segment_network
from amn_dist.models.weights import load_backbone_weights
from amn_dist.ops.resize import sample_labels
from amn_dist.records import IGNORE, Batch, CropRule

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import Config, FitSection


@dataclass(frozen=True)
class SegmentFit:
    """Trains the segmentation network on the masks of the random walk."""

    config: Config
    num_classes: int
    name: str = "segment"

    @property
    def section(self) -> FitSection:
        return self.config.segment

    @property
    def rule(self) -> CropRule:
        section = self.config.segment
        colour = input_colour(section.backbone)
        return CropRule(size=section.crop, scales=section.scales, place="corner", interpolation="linear", colour=colour)

    @cached_property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Size of every output map of the training network at the configured crop."""
        side = self.config.segment.crop
        with torch.device("meta"), torch.no_grad():  # sizes alone: nothing is computed
            outputs = segment_network(self.config, self.num_classes).train()(torch.zeros(1, 3, side, side))
        return tuple((output.shape[-2], output.shape[-1]) for output in outputs)

    def network(self) -> nn.Module:
        network = segment_network(self.config, self.num_classes)
        load_backbone_weights(network.backbone, self.config.initial_weights(self.section.backbone))
        return network

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Backbone convolutions at lr; head weights at lr_head; head biases at twice that without decay (amn 4.2)."""
        section = self.section
        named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        backbone = [p for name, p in named if name.startswith("backbone.")]
        head = [(name, p) for name, p in named if not name.startswith("backbone.")]
        weights = [p for name, p in head if not name.endswith("bias")]
        biases = [p for name, p in head if name.endswith("bias")]
        return [
            {"params": backbone, "lr": section.lr, "weight_decay": section.weight_decay},
            {"params": weights, "lr": section.lr_head, "weight_decay": section.weight_decay},
            {"params": biases, "lr": 2 * section.lr_head, "weight_decay": 0.0},
        ]

    def normalisers(self, batch: Batch) -> Tensor:
        counts = []
        for labels in self._on_grids(batch):
            background = (labels == 0).sum()
            valid = (labels != IGNORE).sum()
            counts += [background, valid - background]
        return torch.stack(counts).double()

    def losses(self, network: nn.Module, batch: Batch, pooled: Tensor) -> dict[str, Tensor]:
        outputs = network(batch.image)
        parts = [
            self._output_loss(logits.float(), labels, counts)
            for logits, labels, counts in zip(outputs, self._on_grids(batch), pooled.view(-1, 2), strict=True)
        ]
        return {**{f"output{i}": part for i, part in enumerate(parts)}, "total": torch.stack(parts).sum()}

    def _output_loss(self, logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        """Loss of one output; counts: f64[2], background and foreground cells of the global batch."""
        loss = functional.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="none")
        if self.config.segment.loss != "balanced":
            return loss.sum() / counts.sum().clamp(min=1).float()
        background, foreground = counts.clamp(min=1).float()
        is_background = labels == 0
        return (sum_where(loss, is_background) / background + sum_where(loss, ~is_background) / foreground) / 2

    def _on_grids(self, batch: Batch) -> Iterator[Tensor]:
        assert batch.label is not None
        for grid in self.grids:
            yield sample_labels(batch.label, grid)


def sum_where(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of the values that a mask of their shape takes, a scalar.

    A device adds zeros for the others: to pick values out, it would have to tell the host how many there are.
    """
    if values.device.type == "cpu":
        return values[mask].sum()
    return (values * mask).sum()
