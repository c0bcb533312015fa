"""Paths, affinities and pair labels against naive loops."""

import numpy as np
import pytest
import torch

from amn_dist.ops.affinity import pair_affinity, pair_labels
from amn_dist.ops.paths import path_cells, path_directions

RADII = [2, 5, 7]


def sources(height: int, width: int, radius: int) -> list[tuple[int, int]]:
    reach = radius - 1
    return [(y, x) for y in range(height - reach) for x in range(reach, width - reach)]


def naive_affinity(edge: torch.Tensor, radius: int) -> torch.Tensor:
    """One pair at a time; max over a stacked path, so that autograd of torch is the oracle of the gradient."""
    rows = []
    for direction in path_directions(radius):
        cells = path_cells(direction)
        pairs = [
            torch.stack([edge[:, y + dy, x + dx] for dy, dx in cells]).amax(0)
            for y, x in sources(edge.shape[1], edge.shape[2], radius)
        ]
        rows.append(1 - torch.stack(pairs, 1))
    return torch.stack(rows, 1)


def test_counts_of_directions_and_cells() -> None:
    for radius, directions, cells in ((5, 34, 242), (10, 152, 2134)):
        listed = path_directions(radius)
        assert len(listed) == len(set(listed)) == directions
        assert sum(len(path_cells(direction)) for direction in listed) == cells


def test_short_paths_come_first() -> None:
    directions = path_directions(3)
    assert directions[:6] == [(0, 1), (1, 0), (0, 2), (2, 0), (1, -1), (1, 1)]
    assert directions[6:] == [(1, -2), (1, 2), (2, -1), (2, 1), (2, -2), (2, 2)]
    assert [len(path_cells(direction)) for direction in directions] == [2, 2, 3, 3, 4, 4, 6, 6, 6, 6, 7, 7]


def test_a_caller_cannot_change_the_order() -> None:
    path_directions(5).reverse()
    assert path_directions(5)[0] == (0, 1)


def test_paths_mirror() -> None:
    for dy, dx in path_directions(7):
        assert set(path_cells((dy, -dx))) == {(y, -x) for y, x in path_cells((dy, dx))}
        assert {(0, 0), (dy, dx)} <= set(path_cells((dy, dx)))


@pytest.mark.parametrize("radius", RADII)
def test_affinity_and_gradient(radius: int) -> None:
    generator = torch.Generator().manual_seed(radius)
    edge = torch.rand(2, 9, 15, generator=generator, dtype=torch.float64, requires_grad=True)
    twin = edge.detach().clone().requires_grad_()
    affinity, expected = pair_affinity(edge, radius), naive_affinity(twin, radius)
    assert torch.equal(affinity, expected)
    weights = torch.rand(expected.shape, generator=generator, dtype=torch.float64)
    (affinity * weights).sum().backward()
    (expected * weights).sum().backward()
    assert edge.grad is not None and twin.grad is not None
    torch.testing.assert_close(edge.grad, twin.grad)


def test_a_tie_gives_the_gradient_once() -> None:
    edge = torch.full((1, 6, 12), 0.5, requires_grad=True)
    affinity = pair_affinity(edge, 3)
    affinity.sum().backward()
    assert edge.grad is not None and edge.grad.sum() == -affinity.numel()


def test_an_image_without_room_for_a_pair() -> None:
    edge = torch.rand(1, 4, 6, requires_grad=True)
    affinity = pair_affinity(edge, 5)
    assert affinity.shape == (1, 34, 0)
    affinity.sum().backward()
    assert edge.grad is not None and not edge.grad.any()
    assert pair_labels(torch.zeros(1, 4, 6, dtype=torch.uint8), 5, 21)[0].shape == (1, 34, 0)


@pytest.mark.parametrize("radius", RADII)
def test_labels(radius: int) -> None:
    labels = torch.from_numpy(np.random.default_rng(radius).choice([0, 1, 2, 3, 20, 255], (2, 8, 14)).astype(np.uint8))
    pairs = pair_labels(labels, radius, 4)
    for b, d, n in np.ndindex(*pairs[0].shape):
        (y, x), (dy, dx) = sources(8, 14, radius)[n], path_directions(radius)[d]
        source, target = int(labels[b, y, x]), int(labels[b, y + dy, x + dx])
        known = source < 4 and target < 4
        expected = (known and source == target == 0, known and source == target > 0, known and source != target)
        assert tuple(bool(kind[b, d, n]) for kind in pairs) == expected


def test_ignored_labels_are_in_no_pair_whatever_the_number_of_classes() -> None:
    labels = torch.full((1, 8, 14), 255)
    assert not any(kind.any() for kind in pair_labels(labels, 5, 1000))
