"""IRN: class boundaries learned from seeds, and the random walk they steer (amn 1.5, 2.4, 3.3, 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.interfaces import Needs
from amn_dist.loaders.grouping import Finish, in_groups
from amn_dist.models.backbones.backbone import build_backbone, input_colour
from amn_dist.models.inference import batch_pixels, device_of, load_for_inference
from amn_dist.models.irn import EdgeNet, affinity_loss_parts, pair_counts
from amn_dist.models.parameter_groups import backbone_and_head
from amn_dist.models.precision import resolve_precision
from amn_dist.models.weights import load_backbone_weights
from amn_dist.ops.normalise import input_pairs
from amn_dist.ops.resize import sample_labels
from amn_dist.ops.transfer import all_to_device, to_host
from amn_dist.ops.walk.walk import pseudo_masks
from amn_dist.records import Batch, CropRule, Sample, grid_size

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import Config, FitSection, Irn

EPSILON = 1e-5
"""Added to every pair count, as published."""


def least_crop(section: Irn) -> int:
    """Side of the smallest crop whose stride-4 cells have a pair: sources lie radius - 1 cells from both sides."""
    return 4 * 2 * (section.radius - 1) + 1


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
        section = self.config.irn
        return CropRule(size=section.crop, rescale=section.rescale, colour=input_colour(section.backbone))

    def network(self) -> nn.Module:
        network = edge_network(self.config)
        load_backbone_weights(network.backbone, self.config.initial_weights(self.section.backbone))
        return network

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        return backbone_and_head(network, self.section)

    def normalisers(self, batch: Batch) -> Tensor:
        counts = pair_counts(self._on_grid(batch), self.config.irn.radius, self.num_classes)
        return torch.stack(list(counts)).double()

    def losses(self, network: nn.Module, batch: Batch, pooled: Tensor) -> dict[str, Tensor]:
        edge = network(batch.image).float()
        sums = affinity_loss_parts(edge, self._on_grid(batch), self.config.irn.radius, self.num_classes)
        background, foreground, negative = (
            total / count for total, count in zip(sums, (pooled + EPSILON).float(), strict=True)
        )
        positive = (background + foreground) / 2
        return {"positive": positive, "negative": negative, "total": (positive + negative) / 2}

    def _on_grid(self, batch: Batch) -> Tensor:
        assert batch.label is not None
        return sample_labels(batch.label, grid_size(*batch.label.shape[-2:]))


@dataclass(frozen=True)
class WalkMap:
    """Writes pseudo-masks uint8[H, W]: the `activation` of an earlier stage, walked inside edges."""

    config: Config
    num_classes: int
    checkpoint: str
    name: str = "walk"
    needs: Needs = "network"
    fields: tuple[str, ...] = ("mask.png",)

    def open(self) -> EdgeNet:
        precision = resolve_precision(self.config.infer.precision)
        return load_for_inference(edge_network(self.config), self.checkpoint, precision=precision)

    def run(self, opened: EdgeNet, samples: Iterator[Sample]) -> Iterator[Sample]:
        section, pixels = self.config.walk, batch_pixels(self.config.infer, opened)

        def infer(group: list[Sample]) -> Finish | None:
            # Edges, walks and labels stay where the network is; only masks come back.
            activations = all_to_device([sample.joined["activation"] for sample in group], device_of(opened))
            masks = pseudo_masks(
                [activation.float() for activation in activations],
                images_edge(opened, [sample.image for sample in group], pad=section.pad),
                [np.flatnonzero(sample.tags).astype(np.uint8) + 1 for sample in group],
                [sample.image.shape[:2] for sample in group],
                background=section.background,
                power=section.power,
                radius=section.radius,
                beta=section.beta,
                steps=section.steps,
            )

            def take(arrays: list[np.ndarray]) -> None:
                for sample, mask in zip(group, arrays, strict=True):
                    sample.made[self.name] = {"mask.png": mask}

            return to_host(masks).then(take)

        return in_groups(
            samples, infer, batch_pixels=pixels, size=lambda sample: padded_size(sample.image.shape[:2], section.pad)
        )


def edge_network(config: Config) -> EdgeNet:
    """The configured edge network with random head weights."""
    return EdgeNet(build_backbone(config.irn.backbone))


def image_edge(model: EdgeNet, image: np.ndarray, *, pad: int | None = 512) -> np.ndarray:
    """Edge probability of one image on the stride-4 grid, averaged with its mirror image (amn 1.5).

    image: uint8[H, W, 3]. pad: side the normalised input is zero-padded to at the bottom and right (VOC), after
    flipping; larger images and pad=None are left at their size (COCO). Returns f32[h, w] in (0, 1).
    """
    return images_edge(model, [image], pad=pad)[0].cpu().numpy()


@torch.inference_mode()
def images_edge(model: EdgeNet, images: Sequence[np.ndarray], *, pad: int | None = 512) -> list[Tensor]:
    """image_edge of several images of one padded size, in one forward pass, where the network is."""
    height, width = padded_size(images[0].shape[:2], pad)
    pixels = all_to_device(images, device_of(model))
    pairs = [input_pairs(image[None], model.backbone.colour) for image in pixels]
    padded = [functional.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2])) for x in pairs]
    logits = model(torch.cat(padded))
    grids = [grid_size(*image.shape[:2]) for image in images]
    shares = logits.float().unflatten(0, (-1, 2))
    edges = [share[..., :rows, :columns] for share, (rows, columns) in zip(shares, grids, strict=True)]
    return [torch.sigmoid((edge[0, 0] + edge[1, 0].flip(-1)) / 2) for edge in edges]


def padded_size(size: tuple[int, int], pad: int | None) -> tuple[int, int]:
    """Size (H, W) of an image once it is padded."""
    height, width = size
    return (height, width) if pad is None else (max(height, pad), max(width, pad))
