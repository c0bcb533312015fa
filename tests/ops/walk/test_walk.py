"""The stencil walk against a dense float64 matrix power."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amn_dist.errors import ConfigError
from amn_dist.ops.paths import path_cells, path_directions
from amn_dist.ops.walk.chebyshev import chebyshev_coefficients
from amn_dist.ops.walk.walk import pseudo_mask, random_walk


def dense_walk(x: np.ndarray, edge: np.ndarray, radius: int, beta: float, steps: int) -> np.ndarray:
    """x (1 - E) T^steps with the whole P x P matrix in float64."""
    height, width = edge.shape
    affinity = np.eye(height * width)
    for y, x_, (dy, dx) in ((y, x, d) for y in range(height) for x in range(width) for d in path_directions(radius)):
        if y + dy < height and 0 <= x_ + dx < width:
            path = max(float(edge[y + cy, x_ + cx]) for cy, cx in path_cells((dy, dx)))
            i, j = y * width + x_, (y + dy) * width + x_ + dx
            affinity[i, j] = affinity[j, i] = (1 - path) ** beta
    transition = affinity / affinity.sum(0)
    start = (x * (1 - edge)).astype(np.float64).reshape(len(x), height * width)
    return (start @ np.linalg.matrix_power(transition, steps)).reshape(x.shape)


def scene(seed: int, classes: int = 2, height: int = 13, width: int = 17) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.random((classes, height, width), np.float32)
    return x, random.random((height, width), np.float32) ** 4


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 31, 64, 255, 256])
def test_steps(steps: int) -> None:
    x, edge = scene(steps)
    expected = dense_walk(x, edge, 5, 10.0, steps)
    assert np.abs(random_walk(x, edge, steps=steps) - expected).max() < 2e-5 * expected.max()


@pytest.mark.parametrize(
    ("radius", "beta", "height", "width"), [(2, 1.0, 9, 9), (4, 3.5, 3, 30), (7, 10.0, 20, 5), (5, 10.0, 1, 1)]
)
def test_geometry(radius: int, beta: float, height: int, width: int) -> None:
    x, edge = scene(radius, 3, height, width)
    expected = dense_walk(x, edge, radius, beta, 256)
    walked = random_walk(x, edge, radius=radius, beta=beta)
    assert np.abs(walked - expected).max() < 2e-5 * expected.max()


def test_a_closed_edge_is_never_crossed() -> None:
    x, edge = np.zeros((1, 12, 21), np.float32), np.zeros((12, 21), np.float32)
    x[:, :, :5], edge[:, 10] = 1, 1
    walked = random_walk(x, edge)
    assert walked[..., :10].min() > 0 and not walked[..., 10:].any()


def test_mass_is_kept_by_columns() -> None:
    x, edge = np.ones((1, 12, 15), np.float32), np.full((12, 15), 0.3, np.float32)
    expected = dense_walk(x, edge, 5, 10.0, 256)
    np.testing.assert_allclose(random_walk(x, edge), expected, rtol=1e-4)


def test_no_classes_and_torch() -> None:
    x, edge = scene(3)
    assert random_walk(x[:0], edge).shape == (0, 13, 17)
    walked = random_walk(torch.from_numpy(x), torch.from_numpy(edge))
    assert isinstance(walked, torch.Tensor) and walked.dtype == torch.float32
    assert np.array_equal(walked.numpy(), random_walk(x, edge))


def test_the_same_bits_every_time_and_the_input_is_left_alone() -> None:
    x, edge = scene(4)
    before = x.copy(), edge.copy()
    assert np.array_equal(random_walk(x, edge), random_walk(x, edge))
    assert np.array_equal(x, before[0]) and np.array_equal(edge, before[1])


@pytest.mark.parametrize("steps", [1, 20, 100, 256, 1001])
def test_chebyshev_sum_is_the_power(steps: int) -> None:
    t = np.linspace(-1, 1, 501)
    powers = np.polynomial.chebyshev.chebval(t, chebyshev_coefficients(steps))
    assert np.abs(powers - t**steps).max() < 2e-8
    assert len(chebyshev_coefficients(steps)) <= 8 * math.sqrt(steps)


def test_mask_of_one_region_per_class() -> None:
    activation = np.zeros((2, 8, 12), np.float32)
    activation[0, :, :4], activation[1, :, 8:] = 1, 1
    edge = np.zeros((8, 12), np.float32)
    edge[:, 5:7] = 1
    mask = pseudo_mask(activation, edge, np.array([3, 7]), (30, 46))
    assert mask.shape == (30, 46) and mask.dtype == np.uint8
    assert (mask[:, :18] == 3).all() and (mask[:, 32:] == 7).all() and (mask[:, 22:26] == 0).all()


def test_parameters_of_the_mask_reach_the_walk() -> None:
    x, edge = scene(5, 2, 6, 8)
    still = pseudo_mask(x, edge, np.array([1, 2]), (24, 32), steps=0, power=1.0, background=0.01)
    assert (still > 0).mean() > 0.9
    fine = torch.nn.functional.interpolate(torch.from_numpy(x * (1 - edge))[None], scale_factor=4, mode="bilinear")[0]
    planes = torch.cat([torch.full((1, 24, 32), 0.01), fine / fine.max()])
    assert np.array_equal(still, planes.argmax(0))


def test_power_comes_before_the_walk() -> None:
    x, edge = scene(8, 2, 6, 8)
    classes, size = np.array([1, 2]), (24, 32)
    expected = pseudo_mask(x**3, edge, classes, size, power=1.0, background=0.6)
    assert np.array_equal(pseudo_mask(x, edge, classes, size, power=3.0, background=0.6), expected)
    assert not np.array_equal(pseudo_mask(x, edge, classes, size, power=1.0, background=0.6), expected)


@pytest.mark.parametrize("classes", [[], [4]])
def test_nothing_to_walk_is_background(classes: list[int]) -> None:
    mask = pseudo_mask(np.zeros((len(classes), 5, 6), np.float32), np.zeros((5, 6)), np.array(classes), (18, 21))
    assert mask.shape == (18, 21) and not mask.any()


def test_torch_mask() -> None:
    x, edge = scene(6, 1, 5, 6)
    classes, size = np.array([9]), (20, 24)
    mask = pseudo_mask(torch.from_numpy(x), torch.from_numpy(edge), torch.from_numpy(classes), size)
    assert isinstance(mask, torch.Tensor) and np.array_equal(mask.numpy(), pseudo_mask(x, edge, classes, size))


def test_a_wrong_grid_is_refused() -> None:
    x, edge = scene(7)
    with pytest.raises(ConfigError, match=r"found edge \(12, 17\), expected \(13, 17\)"):
        random_walk(x, edge[:-1])
    with pytest.raises(ConfigError, match=r"expected \(2, 14, 17\)"):
        pseudo_mask(x, edge, np.array([1, 2]), (53, 68))


@given(
    height=st.integers(1, 10),
    width=st.integers(1, 10),
    classes=st.integers(0, 3),
    radius=st.integers(2, 7),
    beta=st.just(0.0) | st.floats(0.01, 12),
    steps=st.integers(0, 300),
    open_share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_walk(
    height: int, width: int, classes: int, radius: int, beta: float, steps: int, open_share: float, seed: int
) -> None:
    """Edges of exactly 0 and 1 among them, which cut cells off."""
    x, edge = scene(seed, classes, height, width)
    random = np.random.default_rng(seed + 1)
    edge = np.where(random.random(edge.shape) < open_share, random.integers(0, 2, edge.shape), edge).astype(np.float32)
    expected = dense_walk(x, edge, radius, beta, steps)
    walked = random_walk(x, edge, radius=radius, beta=beta, steps=steps)
    assert walked.shape == x.shape and np.abs(walked - expected).max(initial=0) <= 2e-5 * expected.max(initial=0)
