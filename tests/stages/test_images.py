"""Whole-image inference: edge cases, and randomness that follows the key."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amn_dist.config import Backbone
from amn_dist.models.amn import AmnNet
from amn_dist.models.backbone import build_backbone
from amn_dist.models.cam import CamNet
from amn_dist.models.irn import EdgeNet
from amn_dist.stages.amn import image_amn
from amn_dist.stages.classify import image_cam
from amn_dist.stages.irn import image_edge

SMALL = Backbone(name="small", stride=8, weights=None, frozen_taps=0)
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
