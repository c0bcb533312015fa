"""Whole-image inference: edge cases, and randomness that follows the key."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from amn_dist.config import BackboneSection
from amn_dist.models.amn import AmnNet
from amn_dist.models.backbones.backbone import build_backbone
from amn_dist.models.cam import CamNet
from amn_dist.models.deeplab import DeepLab
from amn_dist.models.inference import prepare
from amn_dist.models.irn import EdgeNet
from amn_dist.stages.amn import image_amn, images_amn
from amn_dist.stages.classify import image_cam, images_cam
from amn_dist.stages.irn import image_edge, images_edge
from amn_dist.stages.predict import image_probabilities, images_probabilities

SMALL = BackboneSection(name="small", stride=8, weights=None, frozen_taps=0)
IMAGE = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
TAGS = np.array([0, 1, 0, 1])


def test_maps_have_the_sizes_of_grid_and_image() -> None:
    torch.manual_seed(0)
    classes, coarse, fine = image_cam(CamNet(build_backbone(SMALL), 5).eval(), IMAGE, TAGS)
    assert classes.tolist() == [2, 4] and coarse.shape == (2, 12, 18) and fine.shape == (2, 45, 70)
    assert coarse.min() >= 0 and fine.max() < 1


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (45, 70)])
def test_an_image_without_tags_has_no_maps(size: tuple[int, int]) -> None:
    image, nothing = IMAGE[: size[0], : size[1]], np.zeros(4)
    _, coarse, fine = image_cam(CamNet(build_backbone(SMALL), 5).eval(), image, nothing)
    assert coarse.shape[0] == 0 and fine.shape == (0, *size)
    seed = np.zeros(size, np.uint8)
    _, coarse, fine = image_amn(AmnNet(build_backbone(SMALL), 5).eval(), image, nothing, seed)
    assert coarse.shape[0] == 0 and fine.shape == (0, *size)


def test_dropout_follows_the_key_alone() -> None:
    torch.manual_seed(0)
    model, seed = AmnNet(build_backbone(SMALL), 5).eval(), np.full(IMAGE.shape[:2], 255, np.uint8)
    runs = [image_amn(model, IMAGE, TAGS, seed, dropout=key)[2] for key in ("a", "a", "b")]
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])
    quiet = [image_amn(model, IMAGE, TAGS, seed)[2] for _ in range(2)]
    assert np.array_equal(quiet[0], quiet[1]) and not np.array_equal(quiet[0], runs[0])


def test_padding_changes_the_border_but_not_the_size_of_an_edge_map() -> None:
    torch.manual_seed(0)
    model = EdgeNet(build_backbone(SMALL)).eval()
    plain, padded = image_edge(model, IMAGE, pad=None), image_edge(model, IMAGE, pad=96)
    assert plain.shape == padded.shape == (12, 18)
    assert plain.min() > 0 and plain.max() < 1 and not np.array_equal(plain, padded)
    assert np.array_equal(plain, image_edge(model, IMAGE, pad=16))


class Doubled(nn.Module):
    """A network in float64 that takes its inputs in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.inner = copy.deepcopy(network).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.double().contiguous())


@pytest.mark.parametrize("pad", [None, 512])
@pytest.mark.parametrize("size", [(81, 130), (17, 33), (45, 70), (129, 511), (200, 301), (520, 77)])
def test_edges_keep_their_digits_at_any_size_and_pad(size: tuple[int, int], pad: int | None) -> None:
    torch.manual_seed(0)
    model = EdgeNet(build_backbone(SMALL)).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or parameter.dim() == 1:
            nn.init.normal_(parameter, mean=1.0 if name.endswith("weight") else 0.0, std=0.5)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    exact = image_edge(Doubled(model), image, pad=pad)  # type: ignore[arg-type]
    for network in (model, prepare(copy.deepcopy(model), "cpu")):
        assert np.abs(image_edge(network, image, pad=pad) - exact).max() < 1e-5


BATCH = np.random.default_rng(1).integers(0, 256, (3, 45, 70, 3), dtype=np.uint8)
BATCH_TAGS = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize("pixels", [1, 45 * 70 * 4, 10**6])
def test_batches_of_cam_equal_single_images(pixels: int) -> None:
    torch.manual_seed(0)
    model = CamNet(build_backbone(SMALL), 5).eval()
    found = images_cam(model, list(BATCH), list(BATCH_TAGS), batch_pixels=pixels)
    for maps, image, tags in zip(found, BATCH, BATCH_TAGS, strict=True):
        for one, alone in zip(maps, image_cam(model, image, tags), strict=True):
            np.testing.assert_allclose(one, alone, atol=1e-5)


@pytest.mark.parametrize("pixels", [1, 45 * 70 * 4, 10**6])
def test_batches_of_amn_equal_single_images_dropout_included(pixels: int) -> None:
    torch.manual_seed(0)
    model, keys = AmnNet(build_backbone(SMALL), 5).eval(), ["a", "b", "c"]
    seeds = list(np.random.default_rng(2).choice([0, 2, 4, 255], (3, 45, 70)).astype(np.uint8))
    found = images_amn(model, list(BATCH), list(BATCH_TAGS), seeds, dropout=keys, batch_pixels=pixels)
    for maps, image, tags, seed, key in zip(found, BATCH, BATCH_TAGS, seeds, keys, strict=True):
        for one, alone in zip(maps, image_amn(model, image, tags, seed, dropout=key), strict=True):
            np.testing.assert_allclose(one, alone, atol=2e-5)


def test_batches_of_edges_may_mix_sizes_that_pad_alike() -> None:
    torch.manual_seed(0)
    model = EdgeNet(build_backbone(SMALL)).eval()
    images = [BATCH[0], BATCH[1, :, :50], BATCH[2, :32]]
    for one, image in zip(images_edge(model, images, pad=72), images, strict=True):
        np.testing.assert_allclose(one.numpy(), image_edge(model, image, pad=72), atol=1e-6)


def test_batches_of_probabilities_equal_single_images() -> None:
    torch.manual_seed(0)
    model = DeepLab(build_backbone(SMALL), 5).eval()
    for one, image in zip(images_probabilities(model, list(BATCH)), BATCH, strict=True):
        np.testing.assert_allclose(one, image_probabilities(model, image), atol=1e-5)
