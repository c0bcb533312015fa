"""What do group norms with sums in float64 cost, and how many digits do they save, on one core?

Races ops/group_norm.py against torch's kernels: alone, and in IRN's edge network (ResNet-50, a pair of images padded to
512x512; a training step of two crops of 256x256) and the small network's (training step of four crops of 256x256).

    python -m benchmarks.norms [--rounds 9]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.config import BackboneSection
from amn_dist.models.backbones.backbone import build_backbone
from amn_dist.models.inference import prepare
from amn_dist.models.irn import EdgeNet
from amn_dist.models.norm import GroupNorm
from amn_dist.ops.group_norm import group_norm
from benchmarks.harness import one_core, race, write_result

SHAPES = ((2, 32, 4, 128), (8, 160, 8, 32))
"""Images, channels, groups, side: an edge unit's of IRN, the small network's last."""
KEPT = "sums in float64"
NATIVE = "torch"
COPIED = "torch, made contiguous"


def norms(shape: tuple[int, int, int, int]) -> dict[str, Callable[[Tensor], Tensor]]:
    """The rivals as functions of the map."""
    _, channels, groups, _ = shape
    weight, bias = torch.randn(channels, requires_grad=True), torch.randn(channels, requires_grad=True)
    return {
        NATIVE: lambda x: functional.group_norm(x, groups, weight, bias, 1e-5),
        COPIED: lambda x: functional.group_norm(x.contiguous(), groups, weight, bias, 1e-5).contiguous(
            memory_format=torch.channels_last
        ),
        KEPT: lambda x: group_norm(x, groups, weight, bias, 1e-5),
    }


def measured_norm(shape: tuple[int, int, int, int], rounds: int) -> dict[str, Any]:
    """Forward, forward and backward, and the largest error on a map that is mostly padding."""
    torch.manual_seed(0)
    count, channels, groups, side = shape
    x = torch.randn(count, channels, side, side).contiguous(memory_format=torch.channels_last)
    padded = torch.full_like(x, 5.0)
    padded[:, :, : side // 6, : side // 4] += 0.05 * x[:, :, : side // 6, : side // 4]
    rivals, above = norms(shape), torch.randn_like(x)

    def inferred(norm: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return torch.inference_mode()(lambda: norm(x))

    def trained(norm: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: norm(x.detach().requires_grad_()).backward(above)

    exact = functional.group_norm(padded.double().contiguous(), groups, eps=1e-5)
    plain = {name: norm(padded) for name, norm in _without_weights(groups, channels).items()}
    return {
        "shape": [count, channels, side, side],
        "largest_error_padded": {n: float((found.double() - exact).abs().max()) for n, found in plain.items()},
        "largest_value_padded": float(exact.abs().max()),
        "forward": _seconds({name: inferred(norm) for name, norm in rivals.items()}, rounds),
        "forward_backward": _seconds({name: trained(norm) for name, norm in rivals.items()}, rounds),
    }


def _without_weights(groups: int, channels: int) -> dict[str, Callable[[Tensor], Tensor]]:
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    return {
        NATIVE: lambda x: functional.group_norm(x, groups, ones, zeros, 1e-5),
        COPIED: lambda x: functional.group_norm(x.contiguous(), groups, ones, zeros, 1e-5),
        KEPT: lambda x: group_norm(x, groups, ones, zeros, 1e-5),
    }


def measured_network(name: str, rounds: int, *, images: int) -> dict[str, Any]:
    """IRN's edge network over a backbone: a pair through the prepared network, and a training step."""
    torch.manual_seed(0)
    stride = 16 if name == "resnet50" else 8
    section = BackboneSection.model_validate({"name": name, "stride": stride, "weights": None, "frozen_taps": 0})
    kept = EdgeNet(build_backbone(section))
    rivals = {NATIVE: with_torchs_norms(copy.deepcopy(kept)), KEPT: kept}
    crops = torch.randn(images, 3, 256, 256).contiguous(memory_format=torch.channels_last)
    pair = torch.randn(2, 3, 512, 512).contiguous(memory_format=torch.channels_last)

    def trained(network: nn.Module) -> Callable[[], object]:
        network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        return lambda: network(crops).square().mean().backward()

    def inferred(network: nn.Module) -> Callable[[], object]:
        ready = prepare(copy.deepcopy(network), "cpu")
        return torch.inference_mode()(lambda: ready(pair))

    return {
        "backbone": name,
        "inference_of_a_pair": _seconds({n: inferred(network) for n, network in rivals.items()}, rounds),
        "training_step": _seconds({n: trained(network) for n, network in rivals.items()}, rounds),
    }


def with_torchs_norms(network: nn.Module) -> nn.Module:
    """The network with torch's own layer in the place of ours."""
    for layer in network.modules():
        for name, child in layer.named_children():
            if isinstance(child, GroupNorm):
                plain = nn.GroupNorm(child.num_groups, child.num_channels)
                plain.load_state_dict(child.state_dict())
                setattr(layer, name, plain)
    return network


def _seconds(rivals: dict[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    times = race(rivals, rounds=rounds, warmup=2)
    ratio = times[KEPT].median / times[NATIVE].median
    return {**{name: timing.as_json() for name, timing in times.items()}, "ratio": round(ratio, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    one_core()
    rows = [measured_norm(shape, 3 * arguments.rounds) for shape in SHAPES]
    networks = [measured_network("resnet50", arguments.rounds, images=2)]
    networks.append(measured_network("small", arguments.rounds, images=4))
    write_result("norms", {"norms": rows, "networks": networks})


if __name__ == "__main__":
    main()
