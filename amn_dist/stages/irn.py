"""IRN: class boundaries learned from seeds, and the random walk they steer (amn 1.5, 2.4, 3.3, 3.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.config import Config, FitSection
from amn_dist.models.backbone import build_backbone
from amn_dist.models.groups import backbone_and_head, device_of
from amn_dist.models.irn import EdgeNet, affinity_loss_parts, pair_counts
from amn_dist.models.weights import load_backbone_weights, load_for_inference
from amn_dist.ops.mirror import mirrored
from amn_dist.ops.resize import sample_labels
from amn_dist.ops.walk import pseudo_mask
from amn_dist.records import Batch, CropRule, Sample, grid_size
from amn_dist.verbs import Needs

EPSILON = 1e-5
"""Added to every pair count, as published."""


@dataclass(frozen=True)
class IrnFit:
    """Trains the edge head on seeds; the displacement head plays no part in semantic masks (amn 2.4)."""

    config: Config
    num_classes: int
    name: str = "irn"

    @property
    def section(self) -> FitSection:
        return self.config.irn

    @property
    def rule(self) -> CropRule:
        return CropRule(size=self.config.irn.crop, rescale=self.config.irn.rescale)

    def network(self) -> nn.Module:
        network = edge_network(self.config)
        load_backbone_weights(network.backbone, self.config.initial_weights(self.section.backbone))
        return network

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        return backbone_and_head(network, self.section)

    def normalisers(self, batch: Batch) -> Tensor:
        return (
            torch.stack(list(pair_counts(self._on_grid(batch), self.config.irn.radius, self.num_classes)))
            .double()
            .cpu()
        )

    def losses(self, network: nn.Module, batch: Batch, pooled: Tensor) -> dict[str, Tensor]:
        edge = network(batch.image).float()
        sums = affinity_loss_parts(edge, self._on_grid(batch), self.config.irn.radius, self.num_classes)
        background, foreground, negative = (
            total / (count + EPSILON) for total, count in zip(sums, pooled.tolist(), strict=True)
        )
        positive = (background + foreground) / 2
        return {"positive": positive, "negative": negative, "total": (positive + negative) / 2}

    def _on_grid(self, batch: Batch) -> Tensor:
        assert batch.label is not None
        return sample_labels(batch.label, grid_size(*batch.label.shape[-2:]))


@dataclass(frozen=True)
class WalkMap:
    """Writes pseudo-masks uint8[H, W]: the activation of an earlier stage, walked inside edges."""

    config: Config
    num_classes: int
    checkpoint: str
    activation: str
    name: str = "walk"
    needs: Needs = "network"
    fields: tuple[str, ...] = ("mask.png",)

    def open(self) -> EdgeNet:
        return load_for_inference(edge_network(self.config), self.checkpoint)

    def run(self, opened: EdgeNet, samples: Iterator[Sample]) -> Iterator[Sample]:
        section = self.config.walk
        for sample in samples:
            mask = pseudo_mask(
                sample.joined[self.activation].astype(np.float32),
                image_edge(opened, sample.image, pad=section.pad),
                np.flatnonzero(sample.tags).astype(np.uint8) + 1,
                sample.image.shape[:2],
                background=section.background,
                power=section.power,
                radius=section.radius,
                beta=section.beta,
                steps=section.steps,
            )
            sample.made[self.name] = {"mask.png": mask}
            yield sample


def edge_network(config: Config) -> EdgeNet:
    """The configured edge network with random head weights."""
    return EdgeNet(build_backbone(config.irn.backbone))


@torch.inference_mode()
def image_edge(model: EdgeNet, image: np.ndarray, *, pad: int | None = 512) -> np.ndarray:
    """Edge probability of one image on the stride-4 grid, averaged with its mirror image (amn 1.5).

    image: uint8[H, W, 3]. pad: side the normalised input is zero-padded to at the bottom and right (VOC), after
    flipping; larger images and pad=None are left at their size (COCO). Returns f32[h, w] in (0, 1).
    """
    height, width = image.shape[:2]
    x = mirrored(image, device=device_of(model))
    if pad is not None:
        x = functional.pad(x, (0, max(pad - width, 0), 0, max(pad - height, 0)))
    rows, columns = grid_size(height, width)
    logits = model(x)
    if isinstance(logits, tuple):
        logits = logits[0]
    edges = logits[..., :rows, :columns].float()
    return torch.sigmoid((edges[0, 0] + edges[1, 0].flip(-1)) / 2).cpu().numpy()
