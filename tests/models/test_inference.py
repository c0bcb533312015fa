"""Networks made ready to infer give what the trained ones give."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from amn_dist.config import BackboneSection as Section
from amn_dist.config import Infer
from amn_dist.models.backbones.backbone import build_backbone
from amn_dist.models.backbones.blueprint import FixedBatchNorm
from amn_dist.models.cam import CamNet
from amn_dist.models.deeplab import DeepLab
from amn_dist.models.fused import FusedBlock, FusedConv, FusedSum, fuse
from amn_dist.models.fused_device import DeviceConv, DeviceSum, device_forms
from amn_dist.models.inference import CastBackbone, batch_pixels, prepare
from amn_dist.models.irn import EdgeNet

ARCHITECTURES = [("resnet50", 16), ("resnet101", 8), ("vgg16", 16), ("vgg16", 8), ("small", 8)]


def network(name: str, stride: int) -> CamNet:
    """A classifier whose norms do something."""
    torch.manual_seed(0)
    net = CamNet(build_backbone(Section(name=name, stride=stride, weights=None, frozen_taps=0)), 5).eval()
    for module in net.modules():
        if isinstance(module, FixedBatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.bias, std=0.1)
    return net


@pytest.mark.parametrize(("name", "stride"), ARCHITECTURES)
@torch.inference_mode()
def test_fused_taps_equal_those_of_the_trained_network(name: str, stride: int) -> None:
    net = network(name, stride)
    x = torch.randn(2, 3, 45, 70).to(memory_format=torch.channels_last)
    expected = net.backbone(x)
    ready = prepare(copy.deepcopy(net), "cpu")
    taps = ready.backbone(x)
    for tap, expected_tap in zip(taps, expected, strict=True):
        assert tap.shape == expected_tap.shape
        assert (tap - expected_tap).abs().max() < 2e-5 * expected_tap.abs().max()
    kinds = [type(module) for module in ready.modules()]
    assert FixedBatchNorm not in kinds and (FusedBlock in kinds) == name.startswith("resnet")
    assert any(isinstance(module, FusedConv) and module.winograd for module in ready.modules()) == (name != "small")


@torch.inference_mode()
def test_images_smaller_than_a_cell() -> None:
    net = network("resnet50", 16)
    x = torch.randn(1, 3, 9, 5)
    expected = net.maps(x)
    torch.testing.assert_close(prepare(net, "cpu").maps(x), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_heads_on_a_prepared_backbone() -> None:
    section = Section(name="resnet50", stride=16, weights=None, frozen_taps=0)
    torch.manual_seed(0)
    x = torch.randn(1, 3, 49, 65)
    for net in (EdgeNet(build_backbone(section)), DeepLab(build_backbone(section), 4)):
        expected = net.eval()(x)
        torch.testing.assert_close(prepare(net, "cpu")(x), expected, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_half_precision_stays_inside_the_backbone() -> None:
    net = network("small", 8)
    x = torch.randn(2, 3, 32, 32)
    expected = net.maps(x)
    ready = prepare(net, "cpu", precision=torch.bfloat16)
    assert isinstance(ready.backbone, CastBackbone)
    taps, maps = ready.backbone(x), ready.maps(x)
    assert all(tap.dtype == torch.float32 for tap in taps) and maps.dtype == torch.float32
    assert torch.equal(taps[-1], taps[-1].bfloat16().float()) and not torch.equal(maps, maps.bfloat16().float())
    assert 0 < (maps - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize(("name", "stride"), ARCHITECTURES)
@torch.inference_mode()
def test_bf16_taps_on_a_cpu_are_no_further_off_than_those_of_autocast(name: str, stride: int) -> None:
    net = network(name, stride)
    x = torch.randn(2, 3, 45, 70).to(memory_format=torch.channels_last)
    expected = copy.deepcopy(net).double().backbone(x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = copy.deepcopy(net).to(memory_format=torch.channels_last).backbone(x)
    ready = prepare(net, "cpu", precision=torch.bfloat16)
    for tap, autocast, exact in zip(ready.backbone(x), plain, expected, strict=True):
        assert (tap - exact).abs().mean() < 1.1 * (autocast - exact).abs().mean()
    kinds = {type(module) for module in ready.modules()}
    forms = (FusedConv, FusedSum) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (DeviceConv, DeviceSum)
    assert FixedBatchNorm not in kinds and (forms[1] in kinds) == name.startswith("resnet")
    assert name == "small" or forms[0] in kinds


def test_batches_are_as_configured_or_suit_the_device() -> None:
    net = network("small", 8)
    assert batch_pixels(Infer(), net) == 1
    assert batch_pixels(Infer(batch_pixels=500), net) == 500


@pytest.mark.parametrize(("name", "stride"), ARCHITECTURES)
@torch.inference_mode()
def test_the_form_of_a_device_is_the_trained_network(name: str, stride: int) -> None:
    net = network(name, stride)
    x = torch.randn(2, 3, 45, 70).to(memory_format=torch.channels_last)
    expected = net.backbone(x)
    exact = copy.deepcopy(net)
    half = CastBackbone(copy.deepcopy(net).backbone, torch.bfloat16, device_forms(torch.bfloat16))
    fuse(exact, device_forms(torch.float32))
    for tap, expected_tap in zip(exact.backbone(x), expected, strict=True):
        assert (tap - expected_tap).abs().max() < 2e-5 * expected_tap.abs().max()
    taps = half(x)
    assert len(taps) == 5 and [tap.shape for tap in taps] == [tap.shape for tap in expected]
    for tap, expected_tap in zip(taps, expected, strict=True):
        assert tap.dtype == torch.float32 and torch.equal(tap, tap.bfloat16().float())
        assert (tap - expected_tap).abs().max() < 0.05 * expected_tap.abs().max()
    kinds = [type(module) for module in half.modules()]
    assert FixedBatchNorm not in kinds and (DeviceSum in kinds) == name.startswith("resnet")
    assert (DeviceConv in kinds) == (name != "small")
    assert {value.dtype for value in half.state_dict().values()} == {torch.bfloat16}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
@torch.inference_mode()
def test_fused_convolutions_of_a_gpu_are_the_plain_ones(precision: torch.dtype) -> None:
    net = network("resnet50", 16)
    x = torch.randn(2, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    ready = prepare(copy.deepcopy(net), "cuda", precision=precision)
    fused = [tap.clone() for tap in ready.backbone(x)]
    layers = [module for module in ready.modules() if isinstance(module, (DeviceConv, DeviceSum))]
    assert sum(layer.fused for layer in layers) > len(layers) // 3
    for layer in layers:
        layer.fused = False
    for tap, plain in zip(fused, ready.backbone(x), strict=True):
        assert (tap - plain).abs().max() < (0.03 if precision == torch.bfloat16 else 2e-3) * plain.abs().max()
