"""The feature extractor every network of a run is built on: five taps, of which leading ones may be frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amn_dist.errors import ConfigError
from amn_dist.models.blueprint import Blueprint
from amn_dist.models.caffe_resnet import resnet101
from amn_dist.models.resnet import resnet50
from amn_dist.models.small import small
from amn_dist.models.vgg import vgg16, vgg16_deeplab

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist import config

STRIDES = {"resnet50": (16,), "resnet101": (8,), "vgg16": (16, 8), "vgg16_deeplab": (8,), "small": (8,)}
"""Strides of the last tap that each architecture offers."""


class Backbone(nn.Module):
    """Image [B, 3, H, W] -> five maps, tap i of [B, channels[i], about H / strides[i], about W / strides[i]].

    The layers of the first `frozen_taps` taps hold no trainable parameter and pass no gradient on.
    """

    def __init__(self, name: str, blueprint: Blueprint, *, frozen_taps: int = 0) -> None:
        super().__init__()
        self.name = name
        self.channels = blueprint.channels
        self.strides = blueprint.strides
        self.colour = blueprint.colour
        self.frozen_taps = frozen_taps
        self.features = nn.ModuleDict(blueprint.layers)
        self.spans = _spans(tuple(blueprint.layers), blueprint.ends)
        for layer in (layer for span in self.spans[:frozen_taps] for layer in span):
            self.features[layer].requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        taps = []
        for index, span in enumerate(self.spans):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= self.frozen_taps):
                for layer in span:
                    x = self.features[layer](x)
            taps.append(x)
        return tuple(taps)


def build_backbone(section: config.Backbone) -> Backbone:
    """Build the configured architecture with random weights. Raises ConfigError for a stride it does not have."""
    if section.stride not in STRIDES[section.name]:
        offered = " or ".join(str(stride) for stride in STRIDES[section.name])
        raise ConfigError(
            f"backbone: found {section.name} with stride {section.stride}, expected stride {offered}; "
            f"set backbone.stride"
        )
    return Backbone(section.name, _blueprint(section), frozen_taps=section.frozen_taps)


def _blueprint(section: config.Backbone) -> Blueprint:
    if section.name == "vgg16":
        return vgg16(section.stride)
    makers = {"resnet50": resnet50, "resnet101": resnet101, "vgg16_deeplab": vgg16_deeplab, "small": small}
    return makers[section.name]()


def _spans(names: tuple[str, ...], ends: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    stops = [names.index(end) + 1 for end in ends]
    return tuple(names[start:stop] for start, stop in zip([0, *stops], stops, strict=False))
