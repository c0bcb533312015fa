"""The dilated head of a GPU against float64, on features as a backbone in bf16 hands them on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.config import BackboneSection
from amn_dist.models.amn import AmnNet
from amn_dist.models.aspp import Aspp
from amn_dist.models.backbones.backbone import build_backbone
from amn_dist.models.deeplab import DeepLab
from amn_dist.models.half_head import HalfAspp
from amn_dist.models.inference import CastBackbone, device_of, prepare
from benchmarks.device.fake_cuda import fake_cuda

CLASSES, FEATURES, GRID = 81, 32, (12, 16)


def features(seed: int) -> Tensor:
    """Smooth values >= 0 that bf16 holds, as a deep backbone's last tap has them."""
    noise = torch.randn(1, FEATURES, *(side + 4 for side in GRID), generator=torch.Generator().manual_seed(seed))
    return functional.avg_pool2d(noise, 5, stride=1).mul(5).relu().bfloat16().float()


def at_full_size(logits: Tensor) -> Tensor:
    return functional.interpolate(logits.double(), scale_factor=8.0, mode="bilinear", align_corners=False)


@torch.inference_mode()
def test_labels_and_probabilities_are_those_of_float64() -> None:
    changed, furthest = [], 0.0
    for seed in range(4):
        head, x = Aspp(FEATURES, CLASSES), features(seed)
        half, exact = HalfAspp(copy.deepcopy(head)), copy.deepcopy(head).double()
        logits = half(x)
        assert logits.dtype == torch.float32
        ours, expected = at_full_size(logits), at_full_size(exact(x.double()))
        changed.append((ours.argmax(1) != expected.argmax(1)).double().mean().item())
        furthest = max(furthest, (ours.softmax(1) - expected.softmax(1)).abs().max().item())
    assert sum(changed) / len(changed) < 1e-3, "bf16 changes 3e-3"
    assert furthest < 2e-3


@torch.inference_mode()
def test_features_beyond_float16_count_as_its_largest() -> None:
    head = HalfAspp(Aspp(FEATURES, 3))
    x = features(0)
    x[0, 0, 5, 5] = 1e6
    assert head(x).isfinite().all()


@pytest.mark.parametrize("network", [DeepLab, AmnNet])
def test_a_device_alone_has_it(network: type[DeepLab | AmnNet]) -> None:
    section = BackboneSection(name="small", stride=8, weights=None, frozen_taps=0)
    made = [network(build_backbone(section), 5) for _ in range(3)]
    assert isinstance(prepare(made[0], "cpu", precision=torch.bfloat16).aspp, Aspp)
    with fake_cuda():
        half = prepare(made[1], "cuda", precision=torch.bfloat16)
        assert isinstance(half.aspp, HalfAspp) and isinstance(half.backbone, CastBackbone)
        assert {value.dtype for value in half.aspp.state_dict().values()} == {torch.float16}
        assert device_of(half).type == "cuda"
        assert isinstance(prepare(made[2], "cuda").aspp, Aspp)
