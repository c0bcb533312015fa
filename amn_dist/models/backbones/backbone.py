"""The feature extractor every network of a run is built on: five taps, of which leading ones may be frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amn_dist.errors import ConfigError
from amn_dist.models.backbones.architectures import ARCHITECTURES
from amn_dist.models.backbones.blueprint import Blueprint

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist import config


class Backbone(nn.Module):
    """Image [B, 3, H, W] -> five maps, tap i of [B, channels[i], about H / strides[i], about W / strides[i]].

    The layers of the first `frozen_taps` taps hold no trainable parameter and pass no gradient on. `colour` says how
    the image is normalised (ops.normalise); every network over this backbone is fed so.
    """

    def __init__(self, name: str, blueprint: Blueprint, *, frozen_taps: int = 0) -> None:
        super().__init__()
        self.name = name
        self.channels = blueprint.channels
        self.strides = blueprint.strides
        self.colour = ARCHITECTURES[name].colours[0]
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


def build_backbone(section: config.BackboneSection) -> Backbone:
    """Build the configured architecture with random weights. Raises ConfigError for a stride it does not have."""
    architecture = ARCHITECTURES[section.name]
    if section.stride not in architecture.strides:
        offered = " or ".join(map(str, architecture.strides))
        raise ConfigError(
            f"backbone: found {section.name} with stride {section.stride}, expected stride {offered}; "
            f"set backbone.stride"
        )
    return Backbone(section.name, architecture.build(section.stride), frozen_taps=section.frozen_taps)


def input_colour(section: config.BackboneSection, chosen: str = "imagenet") -> str:
    """How the configured architecture wants its input normalised, as Backbone.colour says.

    chosen: another input that weights of it are made for; `imagenet` means ImageNet's, whatever they want. Raises
    ConfigError when no weights of the architecture want that.
    """
    own = ARCHITECTURES[section.name].colours
    if chosen not in ("imagenet", *own):
        raise ConfigError(f"colour: found {chosen}, expected imagenet: {section.name} is fed {own[0]} input")
    return own[0] if chosen == "imagenet" else chosen


def _spans(names: tuple[str, ...], ends: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    stops = [names.index(end) + 1 for end in ends]
    return tuple(names[start:stop] for start, stop in zip([0, *stops], stops, strict=False))
