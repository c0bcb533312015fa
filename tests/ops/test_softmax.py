"""Probabilities at full size against the definition in float64, which holds every plane."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from amn_dist.ops.softmax import banded_softmax, line_weights, mean_softmax


def logits(channels: int, spread: float) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(channels)
    sizes = ((3, 5), (2, 3), (5, 7), (6, 9))
    return [torch.randn(channels, *size, generator=generator) * spread for size in sizes]


def expected(maps: list[torch.Tensor], classes: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    planes = [interpolate(m.double()[None], size, mode="bilinear", align_corners=False)[0] for m in maps]
    return torch.stack(planes).mean(0).softmax(0)[torch.from_numpy(classes)]


@pytest.mark.parametrize("channels", [2, 21, 32, 81])
@pytest.mark.parametrize("size", [(1, 1), (10, 18), (39, 70)])
def test_both_forms(channels: int, size: tuple[int, int]) -> None:
    maps, classes = logits(channels, 3), np.array([1, channels - 1])
    wanted = expected(maps, classes, size)
    for probabilities in (
        mean_softmax(maps, classes, size),
        banded_softmax(maps, classes, size, band_values=channels * 200),
    ):
        assert probabilities.dtype == torch.float32
        torch.testing.assert_close(probabilities.double(), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("offset", [0.0, 300.0, -4000.0])
def test_large_logits_neither_overflow_nor_vanish(offset: float) -> None:
    maps, classes = [m + offset for m in logits(21, 60)], np.array([0, 7, 20])
    probabilities = mean_softmax(maps, classes, (20, 31))
    assert torch.isfinite(probabilities).all()
    torch.testing.assert_close(probabilities.double(), expected(maps, classes, (20, 31)), rtol=0, atol=5e-4)


def test_small_probabilities_keep_their_digits() -> None:
    maps = [torch.linspace(0, -40, 21).reshape(21, 1, 1)]
    probabilities = mean_softmax(maps, np.arange(21), (1, 1))
    torch.testing.assert_close(probabilities.double(), expected(maps, np.arange(21), (1, 1)), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("length", "cells"), [(1, 7), (30, 120), (45, 427), (80, 31), (17, 17)])
def test_lines_are_resized_as_torch_does(length: int, cells: int) -> None:
    values = np.random.default_rng(0).normal(size=length).astype(np.float32)
    lower, upper, share = line_weights(length, cells)
    resized = (1 - share) * values[lower] + share * values[upper]
    line = torch.from_numpy(values)[None, None]
    np.testing.assert_allclose(resized, interpolate(line, cells, mode="linear", align_corners=False)[0, 0], atol=1e-6)


@given(
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    scales=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=4),
    channels=st.integers(1, 40),
    spread=st.floats(0, 60),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_logits(
    size: tuple[int, int], scales: list[tuple[int, int]], channels: int, spread: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(channels, *cells, generator=generator) * spread for cells in scales]
    classes = np.unique([0, channels // 2, channels - 1])
    wanted = expected(maps, classes, size)
    for probabilities in (
        mean_softmax(maps, classes, size),
        banded_softmax(maps, classes, size, band_values=channels * 70),
    ):
        torch.testing.assert_close(probabilities.double(), wanted, rtol=0, atol=2e-6 + 1e-6 * spread)
