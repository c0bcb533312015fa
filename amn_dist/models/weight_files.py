"""Whether initial weights are there and fit a backbone, before anything is computed: names and shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from amn_dist.models.backbones.backbone import build_backbone
from amn_dist.models.weights import backbone_layers, check_fit, read_tensors, torchvision_cache

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import BackboneSection


@dataclass(frozen=True)
class BackboneShape:
    """Names and shapes of a backbone's tensors, on torch's meta device. parameters: numbers in them."""

    tensors: dict[str, Tensor]

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.tensors.values())


def check_backbone_weights(section: BackboneSection, weights: str) -> None:
    """Raise ConfigError unless a file of weights fits the configured backbone, as load_backbone_weights would.

    Of a .safetensors the header is read; pickles are read whole. Weights of torchvision are looked at where they are.
    """
    file = torchvision_cache(section.name) if weights == "torchvision" else Path(weights)
    layers = backbone_layers(read_tensors(file, shapes_only=True))
    check_fit(backbone_shape(section).tensors, layers, where=f"{file} (for {section.name})")


def is_downloaded(section: BackboneSection) -> bool:
    """Whether torchvision's weights of a backbone are on this machine. Raises ConfigError where it has none."""
    return torchvision_cache(section.name).is_file()


def backbone_shape(section: BackboneSection) -> BackboneShape:
    """What a backbone looks like. Raises ConfigError for a stride it does not have."""
    return _shape(section.model_copy(update={"frozen_taps": 0, "weights": None}))


@lru_cache(maxsize=16)
def _shape(section: BackboneSection) -> BackboneShape:
    with torch.device("meta"):
        return BackboneShape(build_backbone(section).features.state_dict())
