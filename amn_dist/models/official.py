"""Published checkpoints into our networks. Their files name a tensor up to three times; any name will do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from amn_dist import config
from amn_dist.errors import ConfigError, printable
from amn_dist.models.amn import AmnNet
from amn_dist.models.backbones.backbone import Backbone, build_backbone
from amn_dist.models.cam import CamNet
from amn_dist.models.deeplab import DeepLab
from amn_dist.models.icd import IcdNet
from amn_dist.models.irn import EdgeNet
from amn_dist.models.published import DISPLACEMENT, ICD_FIXED, STRUCTURAL, Kind, prefixes, translate
from amn_dist.models.weights import COUNTER, check_fit

Network = TypeVar("Network", bound=nn.Module)

CLASSES = {
    "cam": (("classifier.weight", "newly_added.0.weight"), 1),
    "amn": (("classifier.1.c0.bias", "newly_added.0.1.c0.bias"), 0),
    "deeplab": (("base.aspp.c0.bias",), 0),
    "icd": (("fc8_bias", "arg:fc8_bias"), 1),
}
"""Tensors whose first side counts the classes of a published file, and what it lacks of C. IRN's knows no classes."""


def load_cam(state_dict: Mapping[str, Tensor], num_classes: int) -> CamNet:
    """Our classifier with the weights of a published one. Raises ConfigError naming keys that do not fit."""
    with torch.device("meta"):
        network = CamNet(_resnet50(frozen_taps=3), num_classes)
    return _adopt(network, state_dict, prefixes("cam"), "CAM checkpoint")


def load_amn(state_dict: Mapping[str, Tensor], num_classes: int) -> AmnNet:
    """Our AMN with the weights of a published one. Raises ConfigError naming keys that do not fit."""
    with torch.device("meta"):
        network = AmnNet(_resnet50(frozen_taps=1), num_classes)
    return _adopt(network, state_dict, prefixes("amn"), "AMN checkpoint")


def load_irn(state_dict: Mapping[str, Tensor], num_classes: int) -> EdgeNet:
    """Our edge network with the weights of a published IRN. Raises ConfigError naming keys that do not fit.

    num_classes: the file does not depend on it. A displacement branch in it is ignored.
    """
    edge_only = {name: tensor for name, tensor in state_dict.items() if not name.startswith(DISPLACEMENT)}
    with torch.device("meta"):
        network = EdgeNet(_resnet50(frozen_taps=5))
    return _adopt(network, edge_only, prefixes("irn"), "IRN checkpoint")


def load_deeplab(state_dict: Mapping[str, Tensor], num_classes: int) -> DeepLab:
    """Our DeepLabV2 (ResNet-101, scales 0.5 and 0.75 beside the image) with the weights of deeplab-pytorch's."""
    section = config.BackboneSection(name="resnet101", stride=8, weights=None, frozen_taps=0)
    with torch.device("meta"):
        network = DeepLab(build_backbone(section), num_classes)
    return _adopt(network, state_dict, prefixes("deeplab"), "DeepLab checkpoint")


def load_icd(state_dict: Mapping[str, Tensor], num_classes: int) -> IcdNet:
    """Our intra-class discriminator with the weights of a published one; `arg:` and `aux:` may stand before the names.

    The file does not say how many steps were taken: they count from 0.
    """
    published = {
        re.sub(r"^(?:arg|aux):", "", name): torch.as_tensor(value)
        for name, value in state_dict.items()
        if not ICD_FIXED.match(name)
    }
    section = config.BackboneSection(name="vgg16_deeplab", stride=8, weights=None, frozen_taps=0)
    network = IcdNet(build_backbone(section), num_classes)
    own = {theirs: network.state_dict()[ours] for theirs, ours in prefixes("icd").items()}
    check_fit(own, published, where="ICD checkpoint")
    for name, tensor in own.items():
        tensor.copy_(published[name])
    return network.eval()


def load_published(kind: Kind, state_dict: Mapping[str, Tensor]) -> tuple[nn.Module, int]:
    """Our network with the weights of a published file, and C, read off the file (IRN's knows none: 0).

    Raises ConfigError naming keys that are missing, unknown or misshapen.
    """
    if kind == "irn":
        return load_irn(state_dict, 0), 0
    names, lacking = CLASSES[kind]
    counted = next((state_dict[name] for name in names if name in state_dict), None)
    if counted is None or not counted.ndim:
        raise ConfigError(
            f"{kind} checkpoint: found no {names[0]}, which counts its classes; is it of another network?"
        )
    classes = len(counted) + lacking
    return {"cam": load_cam, "amn": load_amn, "deeplab": load_deeplab, "icd": load_icd}[kind](
        state_dict, classes
    ), classes


def published_state(kind: Kind, state_dict: Mapping[str, Tensor], *, aliases: bool) -> dict[str, Tensor]:
    """Our tensors under published names, with the counters and constants those files have.

    aliases: under every name, as the published code loads them; else under the first of each.
    """
    aliases_of: dict[str, list[str]] = {}
    for theirs, ours in prefixes(kind).items():
        aliases_of.setdefault(ours, []).append(theirs)
    state: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        for position in range(max(map(len, aliases_of.values())) if aliases else 1):
            names = {ours: theirs[min(position, len(theirs) - 1)] for ours, theirs in aliases_of.items()}
            state[translate(name, names)] = tensor
    if kind == "icd":
        return {name: tensor for name, tensor in state.items() if name != "steps"} | _fixed_gain(state)
    counters = {name.replace("running_var", COUNTER) for name in state if name.endswith("running_var")}
    return state | {name: torch.zeros((), dtype=torch.int64) for name in counters}


def _fixed_gain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"feat_bn_gamma": torch.ones_like(state["feat_bn_beta"])}


def _resnet50(*, frozen_taps: int) -> Backbone:
    return build_backbone(config.BackboneSection(name="resnet50", stride=16, weights=None, frozen_taps=frozen_taps))


def _adopt(network: Network, state_dict: Mapping[str, Tensor], names: dict[str, str], where: str) -> Network:
    """Fill a network built on the meta device from a published file.

    names: published prefix -> ours; the first of several stands for all.
    """
    published = {ours: theirs for theirs, ours in reversed(names.items())}
    tensors: dict[str, Tensor] = {}
    for alias, value in state_dict.items():
        if STRUCTURAL.match(alias):
            continue
        name, tensor = translate(translate(alias, names), published), torch.as_tensor(value)
        if name in tensors and not torch.equal(tensors[name], tensor):
            raise ConfigError(
                f"{where}: {printable(alias)} differs from {printable(name)}, expected the same tensor; "
                "is it of this network, is it whole?"
            )
        tensors[name] = tensor
    check_fit({translate(name, published): own for name, own in network.state_dict().items()}, tensors, where=where)
    own = {translate(name, names): tensor.to("cpu", torch.float32, copy=True) for name, tensor in tensors.items()}
    network.load_state_dict(own, assign=True)
    return network.eval()
