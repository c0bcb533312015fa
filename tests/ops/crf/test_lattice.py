"""The lattice's filters against exact Gaussians, the reference and themselves."""

import numpy as np
import pytest

from amn_dist.errors import ConfigError
from amn_dist.ops.crf.lattice import Lattice, bilateral_lattice, gaussian_lattice, tile_order
from amn_dist.ops.crf.permutohedral import key_strides


def filtered(lattice: Lattice, values: np.ndarray) -> np.ndarray:
    """The filter in float64, straight from its definition; values [N] in tile order."""
    vertices = len(lattice.begins) - 1
    offsets, weights = (array.reshape(-1, vertices)[: len(values)] for array in (lattice.offsets, lattice.weights))
    points = np.zeros(lattice.points)
    np.add.at(points, offsets, weights * values[:, None].astype(np.float64))
    for begin, end in zip(lattice.begins[:-1], lattice.begins[1:], strict=True):
        entries = lattice.chains[begin:end]
        linked = np.flatnonzero(entries & 1)
        here, ahead = entries[linked] >> 1, entries[linked + 1] >> 1
        blurred = points.copy()
        np.add.at(blurred, here, points[ahead] / 2)
        np.add.at(blurred, ahead, points[here] / 2)
        points = blurred
    return lattice.gain * (weights * points[offsets]).sum(1)


def exact(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The filter with every pair of pixels; features [N, d] in deviations."""
    square = ((features[:, None] - features[None]) ** 2).sum(-1)
    kernel = np.exp(-square / 2)
    root = np.sqrt(kernel.sum(1))
    return kernel @ (values / root) / root


@pytest.mark.parametrize("kind", ["gaussian", "bilateral"])
def test_filters_are_nearly_gaussian(kind: str) -> None:
    random = np.random.default_rng(0)
    height, width = 24, 30
    y, x = np.divmod(np.arange(height * width), width)
    image = np.stack([x * 4, y * 5, x + y], 1).astype(np.uint8) + random.integers(0, 8, (x.size, 3), np.uint8)
    positions = np.stack([x, y], 1).astype(float)
    if kind == "gaussian":
        lattice, features = gaussian_lattice(height, width, 3), positions / 3
    else:
        lattice = bilateral_lattice(image.reshape(height, width, 3), 20, 13)
        features = np.concatenate([positions / 20, image / 13.0], 1)
    values = np.sin(x / 5) + (y > 12)
    order = tile_order(height, width)[: x.size]
    smoothed, expected = filtered(lattice, values[order]), exact(features, values)[order]
    assert np.corrcoef(smoothed, expected)[0, 1] > 0.99 and np.abs(smoothed - expected).mean() < 0.08


def test_row_sums_are_the_filtered_ones() -> None:
    image = np.random.default_rng(1).integers(0, 256, (17, 23, 3), np.uint8)
    for lattice in (bilateral_lattice(image, 50, 5), gaussian_lattice(17, 23, 3)):
        ones = np.ones(17 * 23)
        np.testing.assert_allclose(lattice.row_sums[: ones.size], filtered(lattice, ones), rtol=1e-5)


def test_points_are_numbered_as_they_are_touched() -> None:
    image = np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8)
    lattice = bilateral_lattice(image, 50, 20)
    offsets = lattice.offsets.reshape(len(lattice.frontier), -1)
    assert np.array_equal(np.maximum.accumulate(offsets.max(1)) + 1, lattice.frontier)
    _, first = np.unique(lattice.offsets, return_index=True)
    assert (np.diff(first) > 0).all() and lattice.frontier[-1] == lattice.points
    assert (lattice.offsets.reshape(-1, 6)[0] == np.arange(6)).all()


def test_a_table_grows() -> None:
    """Noise has a simplex a pixel: more points than the first table is made for."""
    image = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
    lattice = bilateral_lattice(image, 1, 1)
    assert lattice.points > 4 * 64 * 64
    assert len(np.unique(lattice.offsets)) == lattice.points


def test_tiles_hold_every_pixel_once() -> None:
    order = tile_order(45, 70)
    assert len(order) % 8 == 0 and np.array_equal(np.sort(order[: 45 * 70]), np.arange(45 * 70))
    y, x = np.divmod(order[: 32 * 32], 70)
    assert y.max() == x.max() == 31


def test_keys_do_not_meet() -> None:
    strides, span = key_strides(np.array([3.0, 2, 50, 50, 50]))
    corners = np.stack(np.meshgrid(*[[-1, 0, 1]] * 5), -1).reshape(-1, 5)
    assert len(np.unique(corners @ strides[:5])) == len(corners) and strides[5] == 0 and span > strides[4]


def test_ranges_too_wide_are_refused() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ConfigError, match="take backend pydensecrf"):
        bilateral_lattice(image, 1e-3, 1e-2)
