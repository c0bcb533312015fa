"""CAM: a multi-label classifier, and the class activation maps it yields (amn 1.2, 2.2, 3.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.interfaces import Needs
from amn_dist.loaders.evidence import TensorMaps, hand_out
from amn_dist.loaders.grouping import Finish, in_groups
from amn_dist.models.backbones.backbone import build_backbone, input_colour
from amn_dist.models.cam import CamNet
from amn_dist.models.inference import batch_pixels, device_of, load_for_inference
from amn_dist.models.parameter_groups import backbone_and_head
from amn_dist.models.precision import resolve_precision
from amn_dist.models.weights import load_backbone_weights
from amn_dist.ops.arrays import as_array
from amn_dist.ops.cam import Maps, cam_maps
from amn_dist.ops.multiscale import maps_over_scales
from amn_dist.ops.transfer import all_to_device
from amn_dist.records import ACTIVATION, Batch, CropRule, Sample

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import Config, FitSection

SCALES = (1.0, 0.5, 1.5, 2.0)
"""Published inference scales (amn 1.2)."""


@dataclass(frozen=True)
class ClassifyFit:
    """Trains the classifier on image tags."""

    config: Config
    num_classes: int
    name: str = "classify"

    @property
    def section(self) -> FitSection:
        return self.config.classify

    @property
    def rule(self) -> CropRule:
        section = self.config.classify
        return CropRule(size=section.crop, long_side=section.long_side, colour=input_colour(section.backbone))

    def network(self) -> nn.Module:
        network = cam_network(self.config, self.num_classes)
        load_backbone_weights(network.backbone, self.config.initial_weights(self.section.backbone))
        return network

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        return backbone_and_head(network, self.section)

    def normalisers(self, batch: Batch) -> Tensor:
        return batch.tags.new_full((1,), batch.tags.numel(), dtype=torch.float64)

    def losses(self, network: nn.Module, batch: Batch, pooled: Tensor) -> dict[str, Tensor]:
        logits = network(batch.image).float()
        return {"total": functional.binary_cross_entropy_with_logits(logits, batch.tags, reduction="sum") / pooled[0]}


@dataclass(frozen=True)
class CamMap:
    """Writes the stride-4 activation maps of the tagged classes, f16[K, h, w]."""

    config: Config
    num_classes: int
    checkpoint: str
    name: str = "cam"
    needs: Needs = "network"
    fields: tuple[str, ...] = (ACTIVATION,)

    def open(self) -> CamNet:
        precision = resolve_precision(self.config.infer.precision)
        return load_for_inference(cam_network(self.config, self.num_classes), self.checkpoint, precision=precision)

    def run(self, opened: CamNet, samples: Iterator[Sample]) -> Iterator[Sample]:
        pixels = batch_pixels(self.config.infer, opened)

        def infer(group: list[Sample]) -> Finish | None:
            images, tags = [sample.image for sample in group], [sample.tags for sample in group]
            maps = tensors_cam(opened, images, tags, scales=self.config.cam.scales, batch_pixels=pixels)
            return hand_out(self.name, group, maps)

        return in_groups(samples, infer, batch_pixels=pixels)


def cam_network(config: Config, num_classes: int) -> CamNet:
    """The configured classifier with random weights."""
    return CamNet(build_backbone(config.classify.backbone), num_classes)


def image_cam(
    model: CamNet, image: np.ndarray, tags: np.ndarray, *, scales: Sequence[float] = SCALES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class activation maps of one image over scales, each seen with its mirror image (amn 1.2).

    image: uint8[H, W, 3]. tags: [C-1] multi-hot.
    Returns classes uint8[K] (1-based), coarse f32[K, h, w] and fine f32[K, H, W], values in [0, 1).
    """
    return images_cam(model, [image], [tags], scales=scales)[0]


def images_cam(
    model: CamNet,
    images: Sequence[np.ndarray],
    tags: Sequence[np.ndarray],
    *,
    scales: Sequence[float] = SCALES,
    batch_pixels: int = 1,
) -> list[Maps]:
    """image_cam of several images of one size, as many in a forward pass as batch_pixels holds."""
    maps = tensors_cam(model, images, tags, scales=scales, batch_pixels=batch_pixels)
    return [(classes, as_array(coarse), as_array(fine)) for classes, coarse, fine in maps]


@torch.inference_mode()
def tensors_cam(
    model: CamNet,
    images: Sequence[np.ndarray],
    tags: Sequence[np.ndarray],
    *,
    scales: Sequence[float] = SCALES,
    batch_pixels: int = 1,
) -> list[TensorMaps]:
    """images_cam with maps that stay where the network is."""
    per_image = maps_over_scales(
        lambda pairs, part, place: model.maps(pairs),
        images,
        scales,
        colour=model.backbone.colour,
        device=device_of(model),
        batch_pixels=batch_pixels,
    )
    present = [np.flatnonzero(of_image) for of_image in tags]
    size, stride = images[0].shape[:2], model.backbone.strides[-1]
    return [
        ((places + 1).astype(np.uint8), *cam_maps(per_scale, index, size, stride=stride))
        for per_scale, places, index in zip(per_image, present, all_to_device(present, device_of(model)), strict=True)
    ]
