"""The walk's kernels with every address checked, against the dense product in float64 (tests/ops/walk has the rest)."""

import pytest
import torch
from torch import Tensor

from amn_dist.ops.paths import path_cells, path_directions
from tests.ops.kernels.conftest import Addresses


def dense(x: Tensor, edge: Tensor, radius: int, beta: float, steps: int) -> Tensor:
    """x (1 - E) T^steps, the affinity one pair at a time."""
    height, width = edge.shape
    affinity = torch.eye(height * width, dtype=torch.float64)
    for y, x_, (dy, dx) in ((y, c, d) for y in range(height) for c in range(width) for d in path_directions(radius)):
        if y + dy < height and 0 <= x_ + dx < width:
            strongest = max(float(edge[y + cy, x_ + cx]) for cy, cx in path_cells((dy, dx)))
            here, there = y * width + x_, (y + dy) * width + x_ + dx
            affinity[here, there] = affinity[there, here] = (1 - strongest) ** beta
    walked = (x.double() * (1 - edge.double())).flatten(1)
    for _ in range(steps):
        walked = walked @ (affinity / affinity.sum(0))
    return walked.view_as(x)


@pytest.mark.parametrize(("radius", "beta", "steps"), [(3, 2.5, 4), (4, 10.0, 1)])
def test_no_address_lies_outside_and_products_are_the_dense_ones(
    addresses: Addresses, radius: int, beta: float, steps: int
) -> None:
    from amn_dist.ops.walk.gpu import walks

    sizes = ((2, 5, 6), (5, 2, 9), (1, 1, 1), (0, 3, 3))
    xs, edges = [torch.rand(*size) for size in sizes], [torch.rand(*size[1:]) ** 4 for size in sizes]
    for walked, x, edge in zip(walks(xs, edges, radius=radius, beta=beta, steps=steps), xs, edges, strict=True):
        expected = dense(x, edge, radius, beta, steps)
        assert walked.shape == x.shape and (not len(x) or (walked - expected).abs().max() <= 1e-5 * expected.max())
