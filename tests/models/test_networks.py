"""The four networks on small inputs: shapes, switches and what they are made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist import config
from amn_dist.models.amn import DROPOUT, AmnNet
from amn_dist.models.aspp import Aspp
from amn_dist.models.backbones.backbone import Backbone, build_backbone
from amn_dist.models.cam import CamNet
from amn_dist.models.deeplab import DeepLab
from amn_dist.models.irn import EdgeNet
from amn_dist.records import grid_size

CLASSES = 5
EVERY = [("small", 8), ("vgg16", 16), ("vgg16", 8), ("resnet50", 16)]


def backbone(name: str = "small", stride: int = 8) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(config.BackboneSection(name=name, stride=stride, weights=None, frozen_taps=0))


def image(height: int = 40, width: int = 56, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "stride"), EVERY)
def test_every_network_on_every_backbone(name: str, stride: int) -> None:
    x, features = image(33, 50), backbone(name, stride)
    tags = torch.eye(CLASSES - 1)[:2]
    cells = grid_size(33, 50, stride)
    with torch.inference_mode():
        cam = CamNet(features, CLASSES)
        assert cam(x).shape == (2, CLASSES - 1)
        assert cam.maps(x).shape == (2, CLASSES - 1, *cells)
        assert AmnNet(features, CLASSES)(x, tags, dropout=False).shape == (2, CLASSES, *cells)
        assert EdgeNet(features)(x).shape == (2, 1, *grid_size(33, 50))
        whole, half, highest = DeepLab(features, CLASSES, branches=(0.5,)).train()(x)
        assert whole.shape == highest.shape == (2, CLASSES, *cells)
        assert half.shape == (2, CLASSES, *grid_size(16, 25, stride))


@pytest.mark.parametrize("name", ["cam", "amn", "edge", "deeplab"])
def test_networks_train_under_bf16_autocast_in_channels_last(name: str) -> None:
    network = (
        {
            "cam": lambda: CamNet(backbone(), CLASSES),
            "amn": lambda: AmnNet(backbone(), CLASSES),
            "edge": lambda: EdgeNet(backbone()),
            "deeplab": lambda: DeepLab(backbone(), CLASSES),
        }[name]()
        .to(memory_format=torch.channels_last)
        .train()
    )
    x = image().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        result = network(x, torch.ones(2, CLASSES - 1), dropout=True) if name == "amn" else network(x)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    torch.stack([output.float().square().mean() for output in outputs]).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_cam_logit_is_the_mean_of_its_map_before_the_relu() -> None:
    network = CamNet(backbone(), CLASSES)
    with torch.inference_mode():
        raw = network.classifier(network.backbone(image())[-1])
        assert torch.allclose(network(image()), raw.mean((2, 3)), atol=1e-5)
        assert torch.equal(network.maps(image()), raw.clamp(min=0))
    assert network.classifier.bias is None


def test_aspp_is_the_sum_of_its_convolutions_and_starts_small() -> None:
    torch.manual_seed(0)
    head = Aspp(64, CLASSES)
    x = torch.randn(1, 64, 9, 9)
    total = sum(
        functional.conv2d(x, conv.weight, conv.bias, padding=rate, dilation=rate)
        for conv, rate in zip(head.convs, (6, 12, 18, 24), strict=True)
    )
    assert torch.allclose(head(x), total, atol=1e-6)
    assert all(conv.bias.eq(0).all() and 0.008 < conv.weight.std().item() < 0.012 for conv in head.convs)


def test_amn_gate_multiplies_features_by_a_linear_map_of_the_tags() -> None:
    network = AmnNet(backbone(), CLASSES)
    tags = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]])
    with torch.inference_mode():
        features = network.backbone(image())[-1]
        gate = tags @ network.gate.weight.T + network.gate.bias
        expected = network.aspp(features * gate[:, :, None, None])
        assert torch.allclose(network(image(), tags, dropout=False), expected, atol=1e-5)


def test_amn_without_condition_ignores_the_tags() -> None:
    network = AmnNet(backbone(), CLASSES, condition=False)
    assert network.gate is None
    with torch.inference_mode():
        without_tags, with_tags = (network(image(), torch.full((2, CLASSES - 1), v), dropout=False) for v in (0.0, 1.0))
    assert torch.equal(without_tags, with_tags)


def test_dropout_follows_its_argument_and_neither_mode_nor_global_state() -> None:
    network = AmnNet(backbone(), CLASSES).eval()
    tags = torch.ones(2, CLASSES - 1)
    with torch.inference_mode():

        def named(name: str) -> Tensor:
            torch.rand(ord(name))
            return network(image(), tags, dropout=[name])

        off = network(image(), tags, dropout=False)
        assert torch.equal(off, network.train()(image(), tags, dropout=False))
        assert torch.equal(named("a"), named("a"))
        assert not torch.equal(named("a"), named("b"))
        assert not torch.equal(network.eval()(image(), tags, dropout=True), off)


def test_named_dropout_removes_a_tenth_of_the_elements_and_keeps_the_mean() -> None:
    network = AmnNet(backbone(), CLASSES, condition=False)
    seen: list[Tensor] = []
    network.aspp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        for dropout in (False, ["a", "b"]):
            network(image(64, 64), torch.zeros(2, CLASSES - 1), dropout=dropout)
    plain, dropped = seen
    alive = plain != 0
    kept = alive & (dropped != 0)
    assert torch.allclose(dropped[kept], plain[kept] / (1 - DROPOUT))
    assert abs(float(kept.sum() / alive.sum()) - (1 - DROPOUT)) < 0.02


def test_deeplab_evaluates_to_the_maximum_of_its_training_outputs() -> None:
    network = DeepLab(backbone(), CLASSES, branches=(0.5, 0.75))
    with torch.inference_mode():
        outputs = network.train()(image())
        highest = network.eval()(image())
    assert len(outputs) == 4 and torch.equal(outputs[3], highest)
    resized = [functional.interpolate(o, outputs[0].shape[2:], mode="bilinear") for o in outputs[1:3]]
    assert torch.equal(highest, torch.stack([outputs[0], *resized]).amax(0))


def test_deeplab_without_branches_sees_one_scale() -> None:
    network = DeepLab(backbone(), CLASSES, branches=())
    with torch.inference_mode():
        (only,) = network.train()(image())
        assert torch.equal(only, network.eval()(image()))


def test_edge_head_has_the_published_size() -> None:
    network = EdgeNet(backbone("resnet50", 16))
    assert count(network.edge) == 125_409
    with torch.inference_mode():
        assert network(image(33, 33)).shape == (2, 1, 9, 9)


def test_a_frozen_backbone_leaves_the_edge_head_alone_to_learn() -> None:
    frozen = build_backbone(config.BackboneSection(name="small", stride=8, weights=None, frozen_taps=5))
    network = EdgeNet(frozen)
    network(image()).sum().backward()
    assert all((p.grad is not None) == n.startswith("edge.") for n, p in network.named_parameters())


def test_small_classifier_learns_colours_from_scratch() -> None:
    torch.manual_seed(0)
    network = CamNet(backbone(), 4)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    draw = torch.Generator().manual_seed(2)
    first = last = float("nan")
    for step in range(30):
        x, tags = coloured_squares(draw)
        loss = functional.binary_cross_entropy_with_logits(network(x), tags)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert last < 0.5 * first


def coloured_squares(draw: torch.Generator, batch: int = 8) -> tuple[Tensor, Tensor]:
    x = 0.1 * torch.randn(batch, 3, 48, 48, generator=draw)
    classes = torch.randint(0, 3, (batch,), generator=draw)
    corners = torch.randint(0, 24, (batch, 2), generator=draw)
    for scene, colour, (top, left) in zip(x, classes, corners.tolist(), strict=True):
        scene[colour, top : top + 24, left : left + 24] += 2
    return x, functional.one_hot(classes, 3).float()


def count(module: nn.Module | None) -> int:
    assert module is not None
    return sum(p.numel() for p in module.parameters())
