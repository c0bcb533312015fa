"""Layers that learn by Winograd's products against the layers they replace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from amn_dist.models.winograd import WinogradConv2d, use_winograd


def network() -> nn.Sequential:
    """Layers of every kind: too few channels, direct outputs, a product for each pass, dilated, strided."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 128, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(128, 256, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 128, 3, padding=2, dilation=2),
        nn.Conv2d(128, 32, 3, padding=1, stride=2),
    ).to(memory_format=torch.channels_last)


def learned(layers: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output, and the gradients of its squares."""
    x = x.clone().requires_grad_()
    out = layers(x)
    out.square().sum().backward()
    gradients = {name: p.grad for name, p in layers.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {"output": out.detach(), "input": x.grad, **gradients}


def test_a_network_learns_the_same() -> None:
    direct = network()
    fast = copy.deepcopy(direct)
    before = dict(fast.named_parameters())
    use_winograd(fast)
    assert [type(layer) is WinogradConv2d for layer in fast] == [False, False, True, False, True, False, True, False]
    assert all(parameter is before[name] for name, parameter in fast.named_parameters()) and len(before) == 9
    x = torch.randn(2, 3, 34, 37).contiguous(memory_format=torch.channels_last)
    expected, gradients = learned(direct, x), learned(fast, x)
    assert expected.keys() == gradients.keys()
    for name, value in expected.items():
        assert (gradients[name] - value).abs().max() <= 1e-4 * value.abs().max(), name
    assert not torch.equal(expected["4.weight"], gradients["4.weight"])


def test_what_is_frozen_gets_no_gradient() -> None:
    layers = network()
    use_winograd(layers)
    for layer in layers[:5]:
        layer.requires_grad_(False)
    layers(torch.randn(2, 3, 34, 37)).sum().backward()
    assert all((p.grad is None) != p.requires_grad for p in layers.parameters())
    assert layers[4].weight.grad is None and layers[6].weight.grad is not None


@pytest.mark.parametrize("case", ["autocast", "float64", "few pixels"])
def test_other_inputs_go_the_direct_way(case: str) -> None:
    layer = nn.Conv2d(128, 256, 3, padding=1)
    fast = nn.Sequential(copy.deepcopy(layer))
    use_winograd(fast)
    x = torch.randn(1, 128, *((9, 9) if case == "few pixels" else (40, 40)))
    if case == "float64":
        layer, fast, x = layer.double(), fast.double(), x.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        assert torch.equal(fast(x), layer(x))
