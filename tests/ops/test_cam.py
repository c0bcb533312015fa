"""Merging of scales against the definition, written out in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from amn_dist.ops.cam import merge_amn, merge_cam

SIZE = (39, 70)
GRID = (10, 18)
TAGS = np.array([0, 1, 0, 0, 1])
PLACES = [1, 4]


def per_scale(channels: int, *, positive: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(channels, h, w, generator=generator) * 3 for h, w in ((3, 5), (2, 3), (5, 7), (6, 9))]
    return [m.relu() for m in maps] if positive else maps


def resized(maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    return torch.stack([interpolate(m.double()[None], size, mode="bilinear", align_corners=False)[0] for m in maps])


@pytest.mark.parametrize(("stride", "whole"), [(16, (48, 80)), (8, (40, 72))])
def test_cam(stride: int, whole: tuple[int, int]) -> None:
    maps = per_scale(5, positive=True)
    classes, coarse, fine = merge_cam(maps, TAGS, SIZE, stride=stride)
    assert classes.tolist() == [2, 5] and classes.dtype == np.uint8
    for maps_of_size, full, (height, width) in ((coarse, GRID, GRID), (fine, whole, SIZE)):
        total = resized(maps, full).sum(0)[PLACES, :height, :width]
        expected = total / (total.amax((1, 2), keepdim=True) + 1e-5)
        assert maps_of_size.dtype == np.float32
        np.testing.assert_allclose(maps_of_size, expected, atol=1e-6)


@pytest.mark.parametrize("gate", [True, False])
def test_amn(gate: bool) -> None:
    maps = per_scale(6, positive=False)
    seed = np.random.default_rng(0).choice([0, 2, 5, 255], SIZE).astype(np.uint8)
    classes, coarse, fine = merge_amn(maps, TAGS, seed, SIZE, gate=gate)
    assert classes.tolist() == [2, 5]
    centres = [[int((i + 0.5) * n / cells) for i in range(cells)] for n, cells in zip(SIZE, GRID, strict=True)]
    for maps_of_size, size, labels in ((coarse, GRID, seed[np.ix_(*centres)]), (fine, SIZE, seed)):
        p = resized(maps, size).mean(0).softmax(0)[[2, 5]]
        low, high = p.amin((1, 2), keepdim=True), p.amax((1, 2), keepdim=True)
        expected = (p - low) / (high - low + 1e-5)
        if gate:
            expected = torch.where(torch.from_numpy(labels == 0), p, expected)
        assert maps_of_size.dtype == np.float32
        np.testing.assert_allclose(maps_of_size, expected, atol=2e-6)


def test_no_tags() -> None:
    none, seed = np.zeros(5), np.zeros(SIZE, np.uint8)
    for classes, coarse, fine in (
        merge_cam(per_scale(5, positive=True), none, SIZE),
        merge_amn(per_scale(6, positive=False), none, seed, SIZE),
    ):
        assert classes.shape == (0,) and coarse.shape == (0, *GRID) and fine.shape == (0, *SIZE)
        assert classes.dtype == np.uint8 and coarse.dtype == fine.dtype == np.float32


def test_a_class_without_activation_stays_zero() -> None:
    maps = [torch.zeros(5, 3, 5)]
    _, coarse, fine = merge_cam(maps, TAGS, SIZE)
    assert not coarse.any() and not fine.any()


def test_numpy_and_half_precision_maps() -> None:
    maps = [m.bfloat16().float() for m in per_scale(5, positive=True)]
    expected = merge_cam(maps, TAGS, SIZE)
    for same in ([m.numpy() for m in maps], [m.bfloat16() for m in maps]):
        for merged, wanted in zip(merge_cam(same, torch.from_numpy(TAGS), SIZE), expected, strict=True):
            assert np.array_equal(merged, wanted)


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    scales=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    tags=st.lists(st.booleans(), min_size=1, max_size=6),
    stride=st.sampled_from([8, 16]),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_maps(
    size: tuple[int, int], scales: list[tuple[int, int]], tags: list[bool], stride: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(len(tags) + 1, *cells, generator=generator) * 3 for cells in scales]
    indices, grid = [i for i, tag in enumerate(tags) if tag], ((size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1)
    whole = (-(-size[0] // stride) * stride, -(-size[1] // stride) * stride)
    positive = [m[1:].relu() for m in maps]
    classes, coarse, fine = merge_cam(positive, np.array(tags), size, stride=stride)
    assert classes.tolist() == [index + 1 for index in indices]
    for maps_of_size, full, (height, width) in ((coarse, grid, grid), (fine, whole, size)):
        total = resized(positive, full).sum(0)[indices, :height, :width]
        expected = total / (total.amax((1, 2), keepdim=True) + 1e-5)
        np.testing.assert_allclose(maps_of_size, expected, atol=2e-6)
    labels = np.random.default_rng(seed).choice([0, 1, 255], size).astype(np.uint8)
    classes, coarse, fine = merge_amn(maps, np.array(tags), labels, size, gate=False)
    for maps_of_size, full in ((coarse, grid), (fine, size)):
        p = resized(maps, full).mean(0).softmax(0)[[index + 1 for index in indices]]
        low, high = p.amin((1, 2), keepdim=True), p.amax((1, 2), keepdim=True)
        # A range as small as the epsilon enlarges the rounding of p.
        np.testing.assert_allclose(
            maps_of_size,
            (p - low) / (high - low + 1e-5),
            atol=5e-6 / (float((high - low).min()) + 1e-5) if indices else 0,
        )
