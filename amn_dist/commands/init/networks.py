"""Settings that go with a backbone, as the configurations that were run with it have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Tree = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """What a backbone wants. source: where its settings are from. frozen_taps: by stage, 0 where none is said.
    least_steps: of a Fit, on any set. bytes_per_pixel: of a training crop, in memory, about (docs/operations.md,
    sizing). rates: settings of each stage that learns. rescale: of AMN's and IRN's crops. scales: of DeepLab's."""

    source: str
    bytes_per_pixel: int
    least_steps: int
    frozen_taps: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, Tree] = field(default_factory=dict)
    rescale: tuple[float, float] = (0.5, 1.5)
    scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5)


GENERAL = ("resnet50", "vgg16")
"""Backbones of all networks, the first choice first."""
UNTRAINED = "small"
"""The one that learns from random weights."""
PREFERRED = {"segment": ("resnet101",)}
"""By stage, backbones it takes before the general ones."""
VARIANTS = {("discriminate", "vgg16"): "vgg16_deeplab"}
"""By stage and general backbone, the form of it that the stage is published with."""
SAME_WEIGHTS = {"vgg16_deeplab": "vgg16"}
"""Whose weights a variant takes."""
DEEPLAB = {"lr": 2.5e-4, "lr_head": 2.5e-3}
ICD: dict[str, Any] = {"cam_head": "linear", "lr": 1e-3, "lr_hidden": 1e-2, "lr_head": 1e-2, "width": 256}
RECIPES = {
    "resnet50": Recipe(
        source="the published settings, configs/voc12_amn.yaml",
        bytes_per_pixel=8_000,
        least_steps=100,
        frozen_taps={"classify": 3, "amn": 1, "irn": 5, "segment": 1},
        rates={
            "classify": {"lr": 0.1, "lr_head": 1.0},
            "amn": {"lr": 5e-6, "lr_head": 1e-4},
            "irn": {"lr_head": 0.1},
            "segment": DEEPLAB,
            "discriminate": ICD,
        },
    ),
    "vgg16": Recipe(
        source="configs/msrc_amn_vgg16.yaml, run on 234 photographs",
        bytes_per_pixel=8_000,
        least_steps=100,
        frozen_taps={"classify": 5, "amn": 1, "irn": 5, "segment": 3},
        rates={
            "classify": {"momentum_slip": False, "lr": 1e-3, "lr_head": 0.5},
            "amn": {"lr": 5e-5, "lr_head": 1e-3, "smoothing": 0.0},
            "irn": {"momentum_slip": False, "lr_head": 0.1},
            "segment": DEEPLAB,
            "discriminate": ICD,
        },
        rescale=(0.7, 1.3),
        scales=(0.75, 1.0, 1.25),
    ),
    "small": Recipe(
        source="configs/demo.yaml, run on drawn scenes",
        bytes_per_pixel=3_000,
        least_steps=200,
        rates={
            "classify": {"optimiser": "adam", "lr": 2e-3, "lr_head": 2e-3},
            "amn": {"lr": 2e-3, "lr_head": 2e-3, "schedule": "poly"},
            "irn": {"optimiser": "adam", "lr": 3e-3, "lr_head": 3e-3},
            "segment": {"optimiser": "adam", "lr": 2e-3, "lr_head": 2e-3},
            "discriminate": {"cam_head": "linear", "lr": 1e-2, "lr_hidden": 1e-2, "lr_head": 1e-2, "width": 256},
        },
        rescale=(0.75, 1.25),
        scales=(0.75, 1.0, 1.25),
    ),
}
"""By the name of the backbone; those that only DeepLab or ICD are built on follow."""
RECIPES["resnet101"] = Recipe("published", bytes_per_pixel=30_000, least_steps=100, rates={"segment": DEEPLAB})
RECIPES["vgg16_deeplab"] = Recipe(
    source="configs/msrc_icd_vgg16.yaml, run on 234 photographs",
    bytes_per_pixel=12_000,
    least_steps=100,
    frozen_taps={"discriminate": 3},
    rates=RECIPES["vgg16"].rates,
)
