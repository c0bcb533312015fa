"""Published checkpoints into our networks. Their files name a tensor up to three times; any name will do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from amn_dist import config
from amn_dist.errors import ConfigError
from amn_dist.models.amn import AmnNet
from amn_dist.models.aspp import RATES
from amn_dist.models.backbone import Backbone, build_backbone
from amn_dist.models.cam import CamNet
from amn_dist.models.deeplab import DeepLab
from amn_dist.models.icd import IcdNet
from amn_dist.models.irn import EdgeNet
from amn_dist.models.vgg import numbered_convolutions
from amn_dist.models.weights import COUNTER, check_fit

Network = TypeVar("Network", bound=nn.Module)

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
"""Where IRN's names of the displacement branch begin."""


ICD_FIXED = re.compile(r"(arg:|aux:)?feat_bn_gamma$")
"""A gain that published training keeps at 1, whatever the file says."""


def load_cam(state_dict: Mapping[str, Tensor], num_classes: int) -> CamNet:
    """Our classifier with the weights of a published one. Raises ConfigError naming keys that do not fit."""
    names = _backbone_names(CAM_ALIASES) | {"classifier": "classifier", "newly_added.0": "classifier"}
    with torch.device("meta"):
        network = CamNet(_resnet50(frozen_taps=3), num_classes)
    return _adopt(network, state_dict, names, "CAM checkpoint")


def load_amn(state_dict: Mapping[str, Tensor], num_classes: int) -> AmnNet:
    """Our AMN with the weights of a published one. Raises ConfigError naming keys that do not fit."""
    names = _backbone_names(CAM_ALIASES) | {"label_enc": "gate", "newly_added.1": "gate"}
    names |= _aspp_names("classifier.1") | _aspp_names("newly_added.0.1")
    with torch.device("meta"):
        network = AmnNet(_resnet50(frozen_taps=1), num_classes)
    return _adopt(network, state_dict, names, "AMN checkpoint")


def load_irn(state_dict: Mapping[str, Tensor], num_classes: int, *, displacement: bool = False) -> EdgeNet:
    """Our edge network with the weights of a published IRN. Raises ConfigError naming keys that do not fit.

    num_classes: the file does not depend on it. displacement: keep the displacement branch too.
    """
    names = _backbone_names(IRN_ALIASES) | _edge_names() | _displacement_names()
    if not displacement:
        state_dict = {name: tensor for name, tensor in state_dict.items() if not name.startswith(DISPLACEMENT)}
    with torch.device("meta"):
        network = EdgeNet(_resnet50(frozen_taps=5), displacement=displacement)
    return _adopt(network, state_dict, names, "IRN checkpoint")


def load_deeplab(state_dict: Mapping[str, Tensor], num_classes: int) -> DeepLab:
    """Our DeepLabV2 (ResNet-101, scales 0.5 and 0.75 beside the image) with the weights of deeplab-pytorch's."""
    names = {f"base.layer{i}": f"backbone.features.layer{i}" for i in range(1, 6)} | _aspp_names("base.aspp")
    section = config.Backbone(name="resnet101", stride=8, weights=None, frozen_taps=0)
    with torch.device("meta"):
        network = DeepLab(build_backbone(section), num_classes)
    return _adopt(network, state_dict, names, "DeepLab checkpoint")


def load_icd(state_dict: Mapping[str, Tensor], num_classes: int) -> IcdNet:
    """Our intra-class discriminator with the weights of a published one; `arg:` and `aux:` may stand before the names.

    The file does not say how many steps were taken: they count from 0.
    """
    found = {
        re.sub(r"^(?:arg|aux):", "", name): torch.as_tensor(value)
        for name, value in state_dict.items()
        if not ICD_FIXED.match(name)
    }
    section = config.Backbone(name="vgg16_deeplab", stride=8, weights=None, frozen_taps=0)
    network = IcdNet(build_backbone(section), num_classes)
    own = {theirs: network.state_dict()[ours] for theirs, ours in _icd_names().items()}
    check_fit(own, found, where="ICD checkpoint")
    for name, tensor in own.items():
        tensor.copy_(found[name])
    return network.eval()


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


def _resnet50(*, frozen_taps: int) -> Backbone:
    return build_backbone(config.Backbone(name="resnet50", stride=16, weights=None, frozen_taps=frozen_taps))


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


def _displacement_names() -> dict[str, str]:
    parts = (*(f"displacement.units.{i}" for i in range(5)), "displacement.deep", "displacement.fuse")
    names = {"mean_shift.running_mean": "displacement.mean_shift"}
    for i, part in enumerate(parts):
        for prefix in (f"fc_dp{i + 1}", f"dp_layers.{i}"):
            names |= {f"{prefix}.0": f"{part}.conv", f"{prefix}.1": f"{part}.norm"}
    for prefix in ("fc_dp7", "dp_layers.6"):
        names |= {f"{prefix}.3": "displacement.project", f"{prefix}.4.running_mean": "displacement.mean_shift"}
    return names


def _adopt(network: Network, state_dict: Mapping[str, Tensor], names: dict[str, str], where: str) -> Network:
    """Fill a network built on the meta device from a published file.

    names: published prefix -> ours; the first of several stands for all.
    """
    published = {ours: theirs for theirs, ours in reversed(names.items())}
    found: dict[str, Tensor] = {}
    for alias, value in state_dict.items():
        if STRUCTURAL.match(alias):
            continue
        name, tensor = _translate(_translate(alias, names), published), torch.as_tensor(value)
        if name in found and not torch.equal(found[name], tensor):
            raise ConfigError(f"{where}: {alias} differs from {name}, expected the same tensor; get the file anew")
        found[name] = tensor
    check_fit({_translate(name, published): own for name, own in network.state_dict().items()}, found, where=where)
    own = {_translate(name, names): tensor.to("cpu", torch.float32, copy=True) for name, tensor in found.items()}
    network.load_state_dict(own, assign=True)
    return network.eval()


def _translate(name: str, prefixes: dict[str, str]) -> str:
    """The name with its longest known prefix replaced."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in prefixes:
            return ".".join([prefixes[prefix], *parts[length:]])
    return name
