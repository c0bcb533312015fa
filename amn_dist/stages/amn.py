"""AMN: per-pixel classification with label conditioning, and the maps it yields (amn 1.4, 2.3, 3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amn_dist.config import Config, FitSection
from amn_dist.models.amn import AmnNet, pixel_loss_parts
from amn_dist.models.backbone import build_backbone
from amn_dist.models.groups import backbone_and_head, device_of
from amn_dist.models.weights import load_backbone_weights, load_for_inference
from amn_dist.ops.cam import merge_amn
from amn_dist.ops.mirror import flip_sum, mirrored
from amn_dist.ops.resize import sample_labels
from amn_dist.records import IGNORE, Batch, CropRule, Evidence, Sample

SCALES = (1.0, 0.5, 1.5, 2.0)
"""Published inference scales (amn 4.1)."""


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
        return CropRule(size=self.config.amn.crop, rescale=self.config.amn.rescale)

    def network(self) -> nn.Module:
        network = amn_network(self.config, self.num_classes)
        load_backbone_weights(network.backbone, self.config.initial_weights(self.section.backbone))
        return network

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        return backbone_and_head(network, self.section)

    def normalisers(self, batch: Batch) -> Tensor:
        labels = self._on_grid(batch)
        foreground = (labels > 0) & (labels != IGNORE)
        return torch.stack([(labels == 0).sum(), foreground.sum()]).double().cpu()

    def losses(self, network: nn.Module, batch: Batch, pooled: Tensor) -> dict[str, Tensor]:
        logits = network(batch.image, batch.tags, dropout=True).float()
        sums = pixel_loss_parts(logits, self._on_grid(batch), self.config.amn.smoothing)
        background, foreground = (
            total / count for total, count in zip(sums, pooled.clamp(min=1).tolist(), strict=True)
        )
        return {"background": background, "foreground": foreground, "total": (background + foreground) / 2}

    def _on_grid(self, batch: Batch) -> Tensor:
        assert batch.label is not None
        stride = self.section.backbone.stride
        side = -(-batch.label.shape[-1] // stride)
        return sample_labels(batch.label, (side, side))


@dataclass(frozen=True)
class AmnMap:
    """Writes AMN's stride-4 maps of the tagged classes, f16[K, h, w]. Reads the seed AMN was trained on."""

    config: Config
    num_classes: int
    checkpoint: str
    seed: str = "cam_seed"
    name: str = "amn_map"
    fields: tuple[str, ...] = ("activation.npy",)

    def open(self) -> AmnNet:
        return load_for_inference(amn_network(self.config, self.num_classes), self.checkpoint)

    def run(self, opened: AmnNet, samples: Iterator[Sample]) -> Iterator[Sample]:
        section = self.config.amn_map
        for sample in samples:
            dropout = key_generator(self.config.seed, sample.key) if section.dropout else False
            maps = image_amn(
                opened,
                sample.image,
                sample.tags,
                sample.joined[self.seed],
                scales=section.scales,
                dropout=dropout,
                gate=section.seed_gate,
            )
            sample.evidence = Evidence(*maps)
            sample.made[self.name] = {"activation.npy": sample.evidence.coarse.astype(np.float16)}
            yield sample


def amn_network(config: Config, num_classes: int) -> AmnNet:
    """The configured AMN with random weights."""
    return AmnNet(build_backbone(config.amn.backbone), num_classes, condition=config.amn.condition)


def key_generator(seed: int, key: str) -> torch.Generator:
    """Random numbers of one image: the same on every worker, in every order."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


@torch.inference_mode()
def image_amn(
    model: AmnNet,
    image: np.ndarray,
    tags: np.ndarray,
    seed: np.ndarray,
    *,
    scales: Sequence[float] = SCALES,
    dropout: bool | torch.Generator = False,
    gate: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AMN's maps of one image over scales, each seen with its mirror image (amn 1.4).

    image: uint8[H, W, 3]. tags: [C-1] multi-hot. seed: uint8[H, W], the seed AMN was trained on; where it says
    background the raw probability is kept (gate). dropout: on as published, from a generator for repeatable maps.
    Returns classes uint8[K] (1-based), coarse f32[K, h, w] and fine f32[K, H, W], values in [0, 1].
    """
    device = device_of(model)
    condition = torch.from_numpy(np.asarray(tags, np.float32)).to(device).expand(2, -1)
    per_scale = [
        flip_sum(model(mirrored(image, scale, device=device), condition, dropout=dropout)) / 2 for scale in scales
    ]
    return merge_amn(per_scale, tags, seed, image.shape[:2], gate=gate)
