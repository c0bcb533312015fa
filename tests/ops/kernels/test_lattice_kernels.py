"""The lattice in kernels against its twin in torch, point by point, filter by filter and as a whole mean field."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from amn_dist.ops.crf.device import bilateral_batch, gaussian_batch, mean_field_batch
from amn_dist.ops.crf.mean_field import mean_field as compiled
from tests.ops.kernels.conftest import Addresses

SIZES = ((5, 7), (4, 6), (1, 5))
SEED: dict[str, Any] = {"gaussian": (3, 3), "bilateral": (50, 5, 10)}
DEEPLAB: dict[str, Any] = {"gaussian": (1, 3), "bilateral": (67, 3, 4)}


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    """Slopes of colours with noise, uint8[H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).integers(0, 20, (height, width, 3))
    return torch.from_numpy((np.stack([y * 9, x * 7, (x + y) * 5], -1) + noise).clip(0, 255).astype(np.uint8))


def own_rows(sizes: tuple[tuple[int, int], ...]) -> Tensor:
    """Rows of the images' own pixels among those filled up to fours."""
    rows, first = [], 0
    for height, width in sizes:
        rows.append(torch.arange(first, first + height * width))
        first += -(-height * width // 4) * 4
    return torch.cat(rows)


@pytest.mark.parametrize("position", [3, 1.7])
def test_the_filter_over_positions_is_the_twins(addresses: Addresses, position: float) -> None:
    from amn_dist.ops.crf.kernel_lattice import gaussian_lattices

    gaussian_lattices.cache_clear()
    lattice = gaussian_lattices(SIZES, position, torch.device("cpu"))
    check(lattice, gaussian_batch(SIZES, position, torch.device("cpu")), SIZES, channels=3)


@pytest.mark.parametrize(("position", "colour", "channels"), [(50, 5, 6), (3, 20, 17)])
def test_the_filter_over_colours_is_the_twins(
    addresses: Addresses, position: float, colour: float, channels: int
) -> None:
    from amn_dist.ops.crf.kernel_lattice import bilateral_lattices

    images = [photo(*size) for size in SIZES]
    lattice = bilateral_lattices(images, position, colour)
    check(lattice, bilateral_batch(images, position, colour), SIZES, channels=channels)


def test_points_of_many_pixels_are_summed_in_chunks(addresses: Addresses) -> None:
    from amn_dist.ops.crf.kernel_lattice import CHUNK, bilateral_lattices

    image = torch.full((12, 13, 3), 77, dtype=torch.uint8)
    lattice = bilateral_lattices([image], 90, 20)
    points, chunks = lattice.counts.tolist()
    assert chunks >= points + 2 and (lattice.chunk_begins[: chunks + 1].diff() <= CHUNK).all()
    check(lattice, bilateral_batch([image], 90, 20), ((12, 13),), channels=4)


def check(lattice: Any, twin: Any, sizes: tuple[tuple[int, int], ...], channels: int) -> None:
    """The same points, and the same filtered values but for the order of sums."""
    rows = own_rows(sizes)
    assert int(lattice.counts[0]) == len(twin.ahead[0])
    assert (lattice.neighbours[:, 0, : lattice.counts[0]] >= 0).sum() == (twin.ahead < len(twin.ahead[0])).sum()
    q = torch.rand(len(lattice.offsets), channels)
    expected = twin.filter(q[rows])
    message = torch.full_like(q, torch.nan)
    lattice.filter(q, message, weight=1.5, add=False)
    torch.testing.assert_close(message[rows], 1.5 * expected, rtol=0, atol=1e-6)
    lattice.filter(q, message, weight=0.5, add=True)
    torch.testing.assert_close(message[rows], 2 * expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kernels", "groups", "labels"), [(SEED, 2, 3), (DEEPLAB, 1, 5)], ids=["seed", "deeplab"])
def test_a_mean_field_is_the_twins(addresses: Addresses, kernels: dict[str, Any], groups: int, labels: int) -> None:
    from amn_dist.ops.crf.gpu import mean_field

    images = [photo(*size, seed=1) for size in SIZES]
    unaries = [2 * torch.randn(groups * labels, *size) for size in SIZES]
    found = mean_field(images, unaries, labels=labels, iterations=2, **kernels)
    expected = mean_field_batch(images, unaries, labels=labels, iterations=2, **kernels)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-4)


def test_labels_that_cannot_matter_get_no_message_and_their_share(addresses: Addresses) -> None:
    """Two images of twelve labels, where three and six compete; the others lie at the floor."""
    from amn_dist.ops.crf import gpu

    images, unaries = [photo(4, 5), photo(2, 4)], []
    for number, (image, compete) in enumerate(zip(images, (3, 6), strict=True)):
        logits = 2 * torch.randn(12, *image.shape[:2])
        logits[torch.arange(12) % (12 // compete) != number % 2] -= 40
        unaries.append(-logits.softmax(0).clamp(min=1e-8).log())
    energy = torch.cat([unary.flatten(1).T for unary in unaries])
    orders = gpu._strong_first(energy, torch.full((28, 1), 7.0), [slice(0, 20), slice(20, 28)], iterations=2)
    assert orders is not None and orders[1] == 6
    assert [order[:compete].tolist() for order, compete in zip(orders[0], (3, 6), strict=True)] == [
        [0, 4, 8],
        [1, 3, 5, 7, 9, 11],
    ]
    found = gpu.mean_field(images, unaries, labels=12, iterations=2, **DEEPLAB)
    for image, unary, one in zip(images, unaries, found, strict=True):
        expected = compiled(image.numpy(), unary[None].numpy(), iterations=2, drop=False, **DEEPLAB)[0]
        np.testing.assert_allclose(one, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("labels", [1, 2, 7])
def test_no_iteration_is_the_softmax_of_the_unary(addresses: Addresses, labels: int) -> None:
    from amn_dist.ops.crf.gpu import mean_field

    images, unaries = [photo(2, 3), photo(1, 2)], [40 * torch.randn(2 * labels, *size) for size in ((2, 3), (1, 2))]
    found = mean_field(images, unaries, labels=labels, iterations=0, **SEED)
    for one, unary in zip(found, unaries, strict=True):
        expected = (-unary).unflatten(0, (2, labels)).softmax(1).flatten(0, 1)
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-6)


def test_an_image_does_not_depend_on_the_others_and_results_repeat(device: str) -> None:
    from amn_dist.ops.crf.gpu import mean_field

    images = [photo(*size, seed=2).to(device) for size in SIZES[:2]]
    unaries = [torch.randn(3, *size).to(device) for size in SIZES[:2]]
    together = mean_field(images, unaries, labels=3, iterations=1, **SEED)
    alone = mean_field(images[1:], unaries[1:], labels=3, iterations=1, **SEED)
    assert torch.equal(together[1], alone[0])
    assert torch.equal(together[0], mean_field(images, unaries, labels=3, iterations=1, **SEED)[0])
