"""Architectures: what their taps look like, what is frozen, and that they bear the formats training uses."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from amn_dist import config
from amn_dist.errors import ConfigError
from amn_dist.models.backbones.backbone import Backbone, build_backbone
from amn_dist.models.backbones.blueprint import FixedBatchNorm

ALL = [("resnet50", 16), ("resnet101", 8), ("vgg16", 16), ("vgg16", 8), ("small", 8)]


def build(name: str, stride: int, frozen_taps: int = 0) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(config.BackboneSection(name=name, stride=stride, weights=None, frozen_taps=frozen_taps))


def image(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "stride"), ALL)
def test_taps_have_the_promised_channels_and_sizes(name: str, stride: int) -> None:
    with torch.device("meta"):
        backbone, x = build(name, stride), torch.empty(1, 3, 37, 50)
    taps = backbone(x)
    assert len(taps) == len(backbone.channels) == len(backbone.strides) == 5
    assert backbone.strides[1] == 4 and backbone.strides[-1] == stride
    for tap, channels, step in zip(taps, backbone.channels, backbone.strides, strict=True):
        # Caffe's first pool rounds up, which may add a cell.
        spare = 1 if name == "resnet101" else 0
        assert tap.shape[:2] == (1, channels)
        for cells, side in zip(tap.shape[2:], x.shape[2:], strict=True):
            assert 0 <= cells - -(-side // step) <= spare


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (33, 16), (97, 129)])
def test_small_takes_every_size_from_16_pixels(size: tuple[int, int]) -> None:
    for tap, step in zip(build("small", 8)(image(*size)), (4, 4, 8, 8, 8), strict=True):
        assert tuple(tap.shape[2:]) == tuple(-(-side // step) for side in size)


def test_small_stays_within_its_budget() -> None:
    with FlopCounterMode(display=False) as counter:
        build("small", 8)(image(128, 128))
    assert 0.3e9 < counter.get_total_flops() < 0.6e9


@pytest.mark.parametrize(("name", "stride"), ALL)
def test_taps_are_not_overwritten_by_later_layers(name: str, stride: int) -> None:
    backbone = build(name, stride)
    x = image(17, 17)
    with torch.no_grad():
        taps = backbone(x)
        for last, tap in enumerate(taps):
            again = x
            for layer in (layer for span in backbone.spans[: last + 1] for layer in span):
                again = backbone.features[layer](again)
            assert torch.equal(tap, again)


@pytest.mark.parametrize("frozen_taps", [0, 1, 3, 5])
def test_frozen_taps_hold_no_gradient_and_pass_none_on(frozen_taps: int) -> None:
    with torch.device("meta"):
        backbone, x = build("resnet50", 16, frozen_taps), torch.empty(1, 3, 32, 32, requires_grad=True)
    taps = backbone(x)
    assert [tap.requires_grad for tap in taps] == [index >= frozen_taps for index in range(5)]
    if frozen_taps < 5:
        taps[-1].sum().backward()
    parts = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    tap_of = dict(zip(parts, (0, 0, 1, 2, 3, 4), strict=True))
    for name, parameter in backbone.named_parameters():
        trained = tap_of[name.split(".")[1]] >= frozen_taps
        assert parameter.requires_grad == trained
        assert (parameter.grad is not None) == trained


def test_published_rule_of_the_classifier_is_three_frozen_taps() -> None:
    with torch.device("meta"):
        backbone = build("resnet50", 16, 3)
    trained = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"layer3", "layer4"}
    assert any(name.endswith("bn3.weight") for name, p in backbone.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "stride"), [("resnet50", 8), ("resnet101", 16), ("small", 16)])
def test_a_stride_the_architecture_lacks_is_refused(name: str, stride: int) -> None:
    with pytest.raises(ConfigError, match=rf"{name} with stride {stride}, expected stride \d+; set backbone.stride"):
        build(name, stride)


def test_vgg_stride_8_sees_as_far_as_stride_16() -> None:
    coarse, fine = build("vgg16", 16), build("vgg16", 8)
    fine.load_state_dict(coarse.state_dict())
    assert fine.features["28"].dilation == (2, 2) and "23" not in fine.features
    x = image(48, 64)
    assert torch.equal(coarse(x)[2], fine(x)[2])
    assert fine(x)[4].shape[2:] == (6, 8) and coarse(x)[4].shape[2:] == (3, 4)


def test_vgg_layers_carry_torchvision_names() -> None:
    with torch.device("meta"):
        theirs, ours = torchvision.models.vgg16(weights=None), build("vgg16", 16)
    assert set(ours.state_dict()) == {name for name in theirs.state_dict() if name.startswith("features.")}


def test_resnet50_equals_torchvision_when_its_last_stride_is_undone() -> None:
    theirs = torchvision.models.resnet50(weights=None).eval()
    theirs.layer4[0].conv2.stride = theirs.layer4[0].downsample[0].stride = (1, 1)
    ours = build("resnet50", 16)
    ours.load_state_dict(
        {f"features.{n}": t for n, t in theirs.state_dict().items() if not n.startswith("fc.") and "num_b" not in n}
    )
    x = image(33, 48)
    with torch.no_grad():
        stem = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        deep = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(stem))))
        taps = ours(x)
    assert torch.allclose(taps[0], stem, rtol=1e-5, atol=1e-5)
    assert torch.allclose(taps[4], deep, rtol=1e-4, atol=1e-4 * float(deep.abs().max()))


def test_fixed_batch_norm_never_moves_its_statistics() -> None:
    norm = FixedBatchNorm(4).train()
    nn.init.constant_(norm.running_mean, 0.5)
    nn.init.constant_(norm.running_var, 4.0)
    x = image(8, 8).repeat(1, 2, 1, 1)[:, :4]
    assert torch.allclose(norm(x), (x - 0.5) / (4.0 + 1e-5) ** 0.5, atol=1e-6)
    assert norm.running_mean.eq(0.5).all() and norm.running_var.eq(4.0).all()
    norm(x).square().sum().backward()
    assert norm.weight.grad is not None and norm.bias.grad is not None


@pytest.mark.parametrize(("name", "stride"), ALL)
def test_random_networks_do_not_explode(name: str, stride: int) -> None:
    with torch.no_grad():
        deep = build(name, stride)(image(32, 32))[-1]
    assert torch.isfinite(deep).all() and 1e-3 < float(deep.std()) < 1e3


@pytest.mark.parametrize(("name", "stride"), [("resnet50", 16), ("resnet101", 8), ("vgg16", 8), ("small", 8)])
def test_channels_last_and_bf16_autocast(name: str, stride: int) -> None:
    backbone = build(name, stride)
    x = image(20, 24)
    expected = backbone(x)
    folded = backbone.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    for plain, other in zip(expected, folded, strict=True):
        assert torch.allclose(plain, other, rtol=1e-3, atol=1e-4 * float(plain.detach().abs().max()))
    with torch.autocast("cpu", torch.bfloat16):
        deep = backbone(x)[-1]
    deep.float().square().mean().backward()
    reference = expected[-1].detach()
    assert float((deep.detach().float() - reference).norm() / reference.norm()) < 0.1
    trained = [p for p in backbone.parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
