"""AMN: per-pixel classification with label conditioning, and the maps it yields (amn 1.4, 2.3, 3.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from amn_dist.interfaces import Needs
from amn_dist.loaders.evidence import TensorMaps, hand_out
from amn_dist.loaders.grouping import Finish, in_groups
from amn_dist.models.amn import AmnNet, pixel_loss_parts
from amn_dist.models.backbones.backbone import build_backbone, input_colour
from amn_dist.models.inference import batch_pixels, device_of, load_for_inference
from amn_dist.models.parameter_groups import backbone_and_head
from amn_dist.models.precision import resolve_precision
from amn_dist.models.weights import load_backbone_weights
from amn_dist.ops.arrays import as_array
from amn_dist.ops.cam import Maps, amn_maps, closed_cells
from amn_dist.ops.multiscale import maps_over_scales
from amn_dist.ops.resize import sample_labels
from amn_dist.ops.transfer import all_to_device, to_device
from amn_dist.records import ACTIVATION, IGNORE, Batch, CropRule, Sample

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import Config, FitSection

SCALES = (1.0, 0.5, 1.5, 2.0)
"""Published inference scales (amn 1.2, 1.4)."""


@dataclass(frozen=True)
class AmnFit:
    """Trains AMN on confident seeds."""

    config: Config
    num_classes: int
    name: str = "amn"

    @property
    def section(self) -> FitSection:
        return self.config.amn

    @property
    def rule(self) -> CropRule:
        section = self.config.amn
        return CropRule(size=section.crop, rescale=section.rescale, colour=input_colour(section.backbone))

    def network(self) -> nn.Module:
        network = amn_network(self.config, self.num_classes)
        load_backbone_weights(network.backbone, self.config.initial_weights(self.section.backbone))
        return network

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        return backbone_and_head(network, self.section)

    def normalisers(self, batch: Batch) -> Tensor:
        labels = self._on_grid(batch)
        foreground = (labels > 0) & (labels != IGNORE)
        return torch.stack([(labels == 0).sum(), foreground.sum()]).double()

    def losses(self, network: nn.Module, batch: Batch, pooled: Tensor) -> dict[str, Tensor]:
        logits = network(batch.image, batch.tags, dropout=batch.draws or True).float()
        sums = pixel_loss_parts(logits, self._on_grid(batch), self.config.amn.smoothing)
        background, foreground = (total / count for total, count in zip(sums, pooled.clamp(min=1).float(), strict=True))
        return {"background": background, "foreground": foreground, "total": (background + foreground) / 2}

    def _on_grid(self, batch: Batch) -> Tensor:
        assert batch.label is not None
        stride = self.section.backbone.stride
        side = -(-batch.label.shape[-1] // stride)
        return sample_labels(batch.label, (side, side))


@dataclass(frozen=True)
class AmnMap:
    """Writes AMN's stride-4 maps of the tagged classes, f16[K, h, w]. Reads as `seed` the labels AMN was trained on."""

    config: Config
    num_classes: int
    checkpoint: str
    name: str = "amn_map"
    needs: Needs = "network"
    fields: tuple[str, ...] = (ACTIVATION,)

    def open(self) -> AmnNet:
        precision = resolve_precision(self.config.infer.precision)
        return load_for_inference(amn_network(self.config, self.num_classes), self.checkpoint, precision=precision)

    def run(self, opened: AmnNet, samples: Iterator[Sample]) -> Iterator[Sample]:
        section, pixels = self.config.amn_map, batch_pixels(self.config.infer, opened)

        def infer(group: list[Sample]) -> Finish | None:
            maps = tensors_amn(
                opened,
                [sample.image for sample in group],
                [sample.tags for sample in group],
                [sample.joined["seed"] for sample in group],
                scales=section.scales,
                dropout=[f"{self.config.seed}/{sample.key}" for sample in group] if section.dropout else False,
                gate=section.seed_gate,
                batch_pixels=pixels,
            )
            return hand_out(self.name, group, maps)

        return in_groups(samples, infer, batch_pixels=pixels)


def amn_network(config: Config, num_classes: int) -> AmnNet:
    """The configured AMN with random weights."""
    return AmnNet(build_backbone(config.amn.backbone), num_classes, condition=config.amn.condition)


def image_amn(
    model: AmnNet,
    image: np.ndarray,
    tags: np.ndarray,
    seed: np.ndarray,
    *,
    scales: Sequence[float] = SCALES,
    dropout: bool | str = False,
    gate: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AMN's maps of one image over scales, each seen with its mirror image (amn 1.4).

    image: uint8[H, W, 3]. tags: [C-1] multi-hot. seed: uint8[H, W], the seed AMN was trained on; where it says
    background the raw probability is kept (gate). dropout: on as published, from a name for repeatable maps.
    Returns classes uint8[K] (1-based), coarse f32[K, h, w] and fine f32[K, H, W], values in [0, 1].
    """
    named = dropout if isinstance(dropout, bool) else [dropout]
    return images_amn(model, [image], [tags], [seed], scales=scales, dropout=named, gate=gate)[0]


def images_amn(
    model: AmnNet,
    images: Sequence[np.ndarray],
    tags: Sequence[np.ndarray],
    seeds: Sequence[np.ndarray],
    *,
    scales: Sequence[float] = SCALES,
    dropout: bool | Sequence[str] = False,
    gate: bool = True,
    batch_pixels: int = 1,
) -> list[Maps]:
    """image_amn of several images of one size, as many in a pass as batch_pixels holds; dropout: a name each."""
    options = {"scales": scales, "dropout": dropout, "gate": gate, "batch_pixels": batch_pixels}
    maps = tensors_amn(model, images, tags, seeds, **options)  # type: ignore[arg-type]
    return [(classes, as_array(coarse), as_array(fine)) for classes, coarse, fine in maps]


@torch.inference_mode()
def tensors_amn(
    model: AmnNet,
    images: Sequence[np.ndarray],
    tags: Sequence[np.ndarray],
    seeds: Sequence[np.ndarray],
    *,
    scales: Sequence[float] = SCALES,
    dropout: bool | Sequence[str] = False,
    gate: bool = True,
    batch_pixels: int = 1,
) -> list[TensorMaps]:
    """images_amn with maps that stay where the network is."""
    device = device_of(model)
    conditions = to_device(np.asarray(tags, np.float32), device)

    def logits(pairs: Tensor, part: slice, place: int) -> Tensor:
        names = dropout if isinstance(dropout, bool) else [f"{name}/{place}" for name in dropout[part]]
        return model(pairs, conditions[part].repeat_interleave(2, 0), dropout=names) / 2

    colour = model.backbone.colour
    per_image = maps_over_scales(logits, images, scales, colour=colour, device=device, batch_pixels=batch_pixels)
    size = images[0].shape[:2]
    classes = [np.flatnonzero(of_image) + 1 for of_image in tags]
    closed = all_to_device([cells for seed in seeds for cells in closed_cells(seed, size)], device) if gate else []
    return [
        (names.astype(np.uint8), *amn_maps(per_scale, index, size, gates=tuple(gates) if gate else None))
        for per_scale, names, index, gates in zip(
            per_image, classes, all_to_device(classes, device), _pairs_of(closed, len(images)), strict=True
        )
    ]


def _pairs_of(closed: Sequence[Tensor], images: int) -> list[Sequence[Tensor]]:
    """What belongs to each image: two tensors, or none where there are none."""
    return [closed[2 * place : 2 * place + 2] for place in range(images)]
