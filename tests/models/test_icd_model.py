"""The discriminator: where its gradients go, what its statistics are, and that directions find the object."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.config import BackboneSection
from amn_dist.errors import ConfigError
from amn_dist.models.backbones.backbone import build_backbone
from amn_dist.models.icd import Directions, IcdNet, Reading, top_down_weight
from amn_dist.models.icd_losses import bottom_up_part, classification_part, signed_share, top_down_part
from amn_dist.models.official import load_icd
from amn_dist.models.running_statistics import FeatureNorm, SignStatistics
from amn_dist.models.weights import load_network, save_network
from amn_dist.ops.region_means import refine_scores

SMALL = BackboneSection(name="small", stride=8, weights=None, frozen_taps=0)
CLASSES = 4


def net(**options: object) -> IcdNet:
    torch.manual_seed(0)
    return IcdNet(build_backbone(SMALL), CLASSES, width=16, **options).train()  # type: ignore[arg-type]


def inputs(count: int = 4, side: int = 33) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    image = torch.randn(count, 3, side, side, generator=random)
    tags = functional.one_hot(torch.arange(count) % (CLASSES - 1), CLASSES - 1).float()
    tags[-1] = 1
    regions = torch.arange(side * side).reshape(1, side, side).expand(count, -1, -1) // (3 * side)
    return image, tags, regions


def parts(seen: Reading, tags: Tensor, regions: Tensor) -> dict[str, Tensor]:
    target = refine_scores(seen.score.detach(), tags, regions)
    return {
        "classification": classification_part(seen.cam, tags, seen.inside),
        "bottom_up": bottom_up_part(seen.score, tags, seen.inside),
        "top_down": top_down_part(seen.logits, target, tags, seen.inside),
    }


@pytest.mark.parametrize(
    ("loss", "trained"),
    [
        ("classification", {"backbone", "cam"}),
        ("bottom_up", {"directions"}),
        ("top_down", {"backbone", "norm", "top_down"}),
    ],
)
def test_each_loss_reaches_its_own_layers(loss: str, trained: set[str]) -> None:
    network = net()
    image, tags, regions = inputs()
    parts(network(image, tags, regions), tags, regions)[loss].backward()
    reached = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == trained


def test_directions_turn_to_the_largest_second_moment() -> None:
    random = torch.Generator().manual_seed(2)
    axis = functional.normalize(torch.randn(6, generator=random), dim=0)
    x = torch.randn(8, 6, 9, 9, generator=random) + 2 * torch.randn(8, 1, 9, 9, generator=random) * axis[:, None, None]
    tags = torch.zeros(8, 2)
    tags[:, 0] = 1
    tags[4:, 1] = 1  # images of two classes teach nothing
    moment = torch.einsum("nchw,ndhw->cd", x[:4], x[:4])
    top = torch.linalg.eigh(moment)[1][:, -1]
    torch.manual_seed(0)
    directions = Directions(6, 2)
    untouched = directions.weight[1].detach().clone()
    optimiser = torch.optim.SGD(directions.parameters(), lr=5e-3)
    for _ in range(60):
        optimiser.zero_grad()
        bottom_up_part(directions(x), tags).backward()
        optimiser.step()
    unit = functional.normalize(directions.weight.detach(), dim=1)
    assert abs(float(unit[0] @ top)) > 0.999
    assert torch.equal(directions.weight[1], untouched)


def test_bottom_up_gradient_is_that_of_the_formula() -> None:
    directions, (x, tags) = Directions(5, 3).double(), (torch.randn(4, 5, 3, 3).double(), torch.eye(3).double())
    tags = torch.cat([tags, torch.ones(1, 3).double()])

    def loss(weight: Tensor) -> Tensor:
        directions_of = weight / (weight.norm(dim=1, keepdim=True) ** 2 + 1e-10).sqrt()
        score = torch.einsum("kc,nchw->nkhw", directions_of, x)
        return -5 * (torch.eye(4, 3) * (score**2).mean((2, 3))).sum()

    assert torch.autograd.gradcheck(loss, directions.weight)
    gradient = torch.autograd.grad(bottom_up_part(directions(x), tags), directions.weight)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(loss(directions.weight), directions.weight)[0])


def test_top_down_gradient_is_that_of_the_formula() -> None:
    logits, target = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4)
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    top_down_part(logits, target, tags).backward()
    share = signed_share(target)
    clear, side = share.abs() > 0.2, (share > 0).float()
    expected = (torch.sigmoid(logits.detach()) - side) * clear * tags[:, :, None, None] / 16
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected)
    assert 0 < clear.float().mean() < 1 and share.amax() == 1 and share.amin() == -1


def test_the_sign_follows_cam() -> None:
    statistics = SignStatistics(2).train()
    score = torch.cat([torch.ones(1, 2, 1, 4), -torch.ones(1, 2, 1, 4)], 2)
    cam = torch.zeros(1, 2, 2, 4)
    cam[:, 0, 0], cam[:, 1, 1] = 1.0, 1.0
    tags = torch.ones(1, 2)
    assert statistics(score, cam, tags).tolist() == [1, -1]
    statistics.end_step()
    torch.testing.assert_close(statistics.running, torch.tensor([[0.1, 0], [0, 0.1]]))
    for _ in range(12):  # CAM has moved to the other sides: 0.1 * 0.9^n falls below 1 - 0.9^n
        signs = statistics(score, cam.flip(1), tags).tolist()
        statistics.end_step()
    assert signs == [-1, 1]
    assert statistics.eval()(score, cam, tags).tolist() == [-1, 1]


def test_absent_classes_keep_their_statistics() -> None:
    statistics = SignStatistics(2).train()
    statistics.running += 0.5
    statistics(torch.randn(2, 2, 3, 3), torch.rand(2, 2, 3, 3), torch.tensor([[1.0, 0], [1, 0]]))
    statistics.end_step()
    assert statistics.running[1].tolist() == [0.5, 0.5] and statistics.running[0].tolist() != [0.5, 0.5]


def test_norm_is_batch_norm_without_a_gain() -> None:
    norm, x = FeatureNorm(5).train(), 3 + 2 * torch.randn(4, 5, 6, 7)
    norm.bias.data.normal_()
    expected = functional.batch_norm(x, None, None, None, norm.bias, training=True, eps=1e-5)
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)
    norm.end_step()
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.var((0, 2, 3), correction=0))


def test_pieces_of_a_step_enter_the_running_statistics_once() -> None:
    x, cam, tags = torch.randn(6, 3, 4, 4), torch.randn(6, 3, 4, 4), torch.randint(0, 2, (6, 3)).float()
    norms, signs = [FeatureNorm(3).train() for _ in range(2)], [SignStatistics(3).train() for _ in range(2)]
    for norm, sign, size in zip(norms, signs, (6, 2), strict=True):
        for piece in range(0, 6, size):
            cut = slice(piece, piece + size)
            norm(x[cut])
            sign(x[cut], cam[cut], tags[cut])
        norm.end_step()
        sign.end_step()
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(norms[0], name), getattr(norms[1], name))
    torch.testing.assert_close(signs[0].running, signs[1].running)
    assert not norms[0].sums.any() and not signs[0].sums.any()


def test_masked_padding_is_as_if_it_were_not_there() -> None:
    x, inside = torch.randn(2, 3, 6, 5), torch.zeros(2, 1, 6, 5, dtype=torch.bool)
    inside[:, :, :4, :3] = True
    small = x[:, :, :4, :3]
    masked, cut = FeatureNorm(3).train(), FeatureNorm(3).train()
    torch.testing.assert_close(masked(x, inside)[:, :, :4, :3], cut(small), rtol=1e-5, atol=1e-5)
    masked.end_step()
    cut.end_step()
    torch.testing.assert_close(masked.running_var, cut.running_var)
    tags, cam, target = torch.eye(2, 3), torch.randn(2, 3, 6, 5), torch.randn(2, 3, 6, 5)
    signs = [SignStatistics(3).train() for _ in range(2)]
    signs[0](x, cam, tags, inside)
    signs[1](small, cam[:, :, :4, :3], tags)
    torch.testing.assert_close(signs[0].sums, signs[1].sums)
    for value, expected in (
        (bottom_up_part(x, tags, inside), bottom_up_part(small, tags)),
        (classification_part(cam, tags, inside), classification_part(cam[:, :, :4, :3], tags)),
        (top_down_part(cam, target, tags, inside), top_down_part(cam[:, :, :4, :3], target[:, :, :4, :3], tags)),
    ):
        torch.testing.assert_close(value, expected)


def test_the_switch_masks_what_lies_outside_the_photo() -> None:
    image, tags, regions = inputs()
    regions = regions.clone()
    regions[0, 16:] = -1
    counted, masked = net()(image, tags, regions), net(mask_padding=True)(image, tags, regions)
    assert counted.inside is None and masked.inside is not None
    assert masked.inside[0, 0].any(1).tolist() == [True, True, False, False, False] and masked.inside[1:].all()
    assert not torch.equal(counted.logits, masked.logits)


def test_statistics_and_steps_are_saved_with_the_weights(tmp_path: Path) -> None:
    network, (image, tags, regions) = net(warmup=4), inputs()
    weights = []
    for _ in range(5):
        weights.append(float(network(image, tags, regions).weight))
        network.end_step()
    assert weights == pytest.approx([float(torch.exp(torch.tensor(-10 * (1 - i / 4)))) for i in range(5)])
    save_network(network, tmp_path / "m.safetensors")
    other = load_network(net(warmup=4), tmp_path / "m.safetensors")
    assert other.steps == 5 and other.sign.running.any()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert not any(name.endswith(".sums") for name in network.state_dict())


def test_no_warm_up_is_full_weight_from_the_start() -> None:
    assert top_down_weight(torch.tensor(0), 0) == 1


def test_inference_does_not_depend_on_the_batch() -> None:
    network, (image, tags, regions) = net(), inputs()
    network(image, tags, regions)
    network.end_step()
    network.eval()
    with torch.inference_mode():
        cam, signed = network.maps(image)
        alone = network.maps(image[:1])
    torch.testing.assert_close(alone[0], cam[:1])
    torch.testing.assert_close(alone[1], signed[:1])


@pytest.mark.parametrize("resolve_signs", [True, False])
def test_scores_are_maps_of_the_bottom_up_head(resolve_signs: bool) -> None:
    """As in training: along the direction, turned to the side of CAM where signs are resolved."""
    network, (image, tags, regions) = net(resolve_signs=resolve_signs), inputs()
    network.sign.running.copy_(torch.tensor([[0.0, 9.0], [9.0, 0.0], [0.0, 9.0]]))
    network.eval()
    with torch.inference_mode():
        seen, (cam, found) = network(image, tags, regions), network.maps(image, "bottom_up")
        x = network.norm(network.backbone(image)[-1])
        unit = functional.normalize(network.directions.weight, dim=1)
    turned = torch.tensor([-1.0, 1.0, -1.0] if resolve_signs else [1.0, 1.0, 1.0])
    expected = turned[:, None, None] * torch.einsum("kc,bchw->bkhw", unit, x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, seen.score)
    torch.testing.assert_close(cam, seen.cam)


def test_deep_head_and_top_down_head_begin_alike() -> None:
    network = net()
    for layer in ("fc6", "fc7"):
        assert torch.equal(getattr(network.cam, layer).weight, getattr(network.top_down, layer).weight)
    assert isinstance(net(deep=False).cam.classifier, nn.Conv2d) and net(deep=False).cam.classifier.bias is None


@pytest.mark.parametrize(("side", "cells"), [(321, 41), (65, 9), (64, 8), (96, 12)])
def test_deeplab_vgg_has_a_cell_every_eight_pixels(side: int, cells: int) -> None:
    section = BackboneSection(name="vgg16_deeplab", stride=8, weights=None, frozen_taps=0)
    with torch.device("meta"):
        taps = build_backbone(section)(torch.zeros(1, 3, side, side))
    assert taps[-1].shape == (1, 512, cells, cells) and taps[1].shape[1] == 256
    with pytest.raises(ConfigError, match="vgg16_deeplab with stride 16, expected stride 8"):
        build_backbone(section.model_copy(update={"stride": 16}))


def test_deeplab_vgg_takes_the_weights_of_vgg() -> None:
    with torch.device("meta"):
        names = [
            build_backbone(BackboneSection(name=name, stride=8, weights=None)).state_dict()  # type: ignore[arg-type]
            for name in ("vgg16", "vgg16_deeplab")
        ]
    assert {name: tensor.shape for name, tensor in names[0].items()} == {n: t.shape for n, t in names[1].items()}


def test_published_names_are_complete_and_odd_ones_are_named(golden: Path) -> None:
    entries = json.loads((golden / "keys" / "icd_vgg16_mxnet.json").read_text())["entries"]
    published = {
        f"{entry['mx']}:{entry['name']}": torch.tensor(1.0 + number).expand(entry["shape"])
        for number, entry in enumerate(entries)
    }
    loaded = {name: float(tensor.flatten()[0]) for name, tensor in load_icd(published, 21).state_dict().items()}
    del loaded["steps"]
    assert len(set(loaded.values())) == len(loaded) == len(entries) - 1 and min(loaded.values()) >= 1
    published["arg:fc9_bias"] = published.pop("arg:fc8_bias")
    with pytest.raises(ConfigError, match=r"ICD checkpoint: .*missing: fc8_bias; unknown: fc9_bias"):
        load_icd(published, 21)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (5.0, 0.05), (100.0, 0.1)])
def test_the_feature_norm_keeps_its_digits(mean: float, deviation: float, training: bool) -> None:
    torch.manual_seed(0)
    x = mean + deviation * torch.randn(2, 8, 57, 61)
    x[:, :, 20:] = mean  # padding
    x = x.contiguous(memory_format=torch.channels_last)
    norm = FeatureNorm(8).train(training)
    nn.init.normal_(norm.bias)
    norm.running_mean.copy_(x.mean((0, 2, 3)))
    norm.running_var.copy_(x.double().var((0, 2, 3)))
    exact, inputs = copy.deepcopy(norm).double(), [x.clone().requires_grad_(), x.double().requires_grad_()]
    above = torch.randn_like(x)
    outputs = [norm(inputs[0]), exact(inputs[1])]
    for out in outputs:
        out.backward(above.to(out.dtype))
    for first, second in (outputs, [value.grad for value in inputs]):
        assert first is not None and second is not None
        first, second = first.detach(), second.detach()
        assert float((first.double() - second).abs().max() / second.abs().max()) < 1e-6
    for each in (norm, exact):
        each.end_step()
    torch.testing.assert_close(norm.running_var.double(), exact.running_var, rtol=1e-6, atol=0)
    torch.testing.assert_close(norm.running_mean.double(), exact.running_mean, rtol=1e-6, atol=1e-7)
