"""How published checkpoints call the tensors of our networks. Their files name most of them two or three times."""

from __future__ import annotations

import re
from typing import Literal

from amn_dist.models.aspp import RATES
from amn_dist.models.backbones.vgg import numbered_convolutions
from amn_dist.models.weights import COUNTER

Kind = Literal["cam", "amn", "irn", "deeplab", "icd"]
"""Whose checkpoint: the classifier, AMN and IRN of AMN's code, DeepLabV2 of deeplab-pytorch, ICD's network."""

STRUCTURAL = re.compile(rf"path_indices\d+$|disp_target$|.*\.{COUNTER}$")
"""Buffers of published files that hold geometry or counters, not weights."""

CAM_STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
"""Parts of the backbone, in the order of the stage names below."""

CAM_ALIASES = (
    ("stage1.0", "stage1.1", "stage1.4", "stage2.0", "stage3.0", "stage4.0"),
    ("backbone.0.0", "backbone.0.1", "backbone.0.4", "backbone.1.0", "backbone.2.0", "backbone.3.0"),
)
"""How the classifier and AMN call those parts beside `resnet50.`."""

IRN_ALIASES = (
    ("stage1.0", "stage1.1", "stage2.0", "stage3.0", "stage4.0", "stage5.0"),
    ("backbone.0.0", "backbone.0.1", "backbone.1.0", "backbone.2.0", "backbone.3.0", "backbone.4.0"),
)
"""How IRN calls them."""

DISPLACEMENT = ("fc_dp", "dp_layers.", "mean_shift.")
"""Where IRN's names of the displacement branch begin, which plays no part in semantic masks (amn 2.4)."""

ICD_FIXED = re.compile(r"(arg:|aux:)?feat_bn_gamma$")
"""A gain that published training keeps at 1, whatever the file says."""


def prefixes(kind: Kind) -> dict[str, str]:
    """Published prefix -> ours; the first of several for one of ours stands for all. For icd: whole names."""
    if kind == "cam":
        return _backbone_names(CAM_ALIASES) | {"classifier": "classifier", "newly_added.0": "classifier"}
    if kind == "amn":
        heads = {"label_enc": "gate", "newly_added.1": "gate"}
        return _backbone_names(CAM_ALIASES) | heads | _aspp_names("classifier.1") | _aspp_names("newly_added.0.1")
    if kind == "irn":
        return _backbone_names(IRN_ALIASES) | _edge_names()
    if kind == "deeplab":
        return {f"base.layer{i}": f"backbone.features.layer{i}" for i in range(1, 6)} | _aspp_names("base.aspp")
    return _icd_names()


def translate(name: str, renamed: dict[str, str]) -> str:
    """The name with its longest known prefix replaced."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in renamed:
            return ".".join([renamed[prefix], *parts[length:]])
    return name


def _backbone_names(aliases: tuple[tuple[str, ...], ...]) -> dict[str, str]:
    families = (tuple(f"resnet50.{part}" for part in CAM_STAGES), *aliases)
    return {
        alias: f"backbone.features.{part}"
        for family in families
        for alias, part in zip(family, CAM_STAGES, strict=True)
    }


def _aspp_names(prefix: str) -> dict[str, str]:
    return {f"{prefix}.c{i}": f"aspp.convs.{i}" for i in range(len(RATES))}


def _edge_names() -> dict[str, str]:
    names = {"fc_edge6": "edge.fuse", "edge_layers.5": "edge.fuse"}
    for i in range(5):
        for prefix in (f"fc_edge{i + 1}", f"edge_layers.{i}"):
            names |= {f"{prefix}.0": f"edge.units.{i}.conv", f"{prefix}.1": f"edge.units.{i}.norm"}
    return names


def _icd_names() -> dict[str, str]:
    """Published name -> ours."""
    layers = {f"conv{name}": f"backbone.features.{number}" for name, number in numbered_convolutions().items()}
    layers |= {"fc6": "cam.fc6", "fc7": "cam.fc7", "fc8": "cam.classifier"}
    layers |= {"fc6_ft": "top_down.fc6", "fc7_ft": "top_down.fc7"}
    names = {f"{theirs}_{part}": f"{ours}.{part}" for theirs, ours in layers.items() for part in ("weight", "bias")}
    return names | {
        "conv_ft_weight": "top_down.classifier.weight",
        "icd_bu_weight": "directions.weight",
        "feat_bn_beta": "norm.bias",
        "feat_bn_moving_mean": "norm.running_mean",
        "feat_bn_moving_var": "norm.running_var",
        "icd_accum_resign_moving_mean": "sign.running",
    }
