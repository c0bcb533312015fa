"""Pair affinity, its gradient and the labels of pairs as kernels, against what torch does on a CPU."""

import pytest
import torch

from amn_dist.ops.affinity import pair_affinity, pair_labels
from tests.ops.kernels.conftest import Addresses

CASES = [(3, 8, 9, 2), (5, 6, 11, 1), (3, 2, 5, 2)]
"""Radius, height, width, images; the last have no room for a pair. A path's cell takes a millisecond."""


@pytest.mark.parametrize(("radius", "height", "width", "images"), CASES)
def test_affinity_and_gradient_are_the_twins(
    addresses: Addresses, radius: int, height: int, width: int, images: int
) -> None:
    from amn_dist.ops.kernels.affinity import PairAffinity

    edge = torch.rand(images, height, width)
    edge[:, ::3] = edge[:, ::3].round(decimals=1)  # ties
    edge.requires_grad_()
    twin = edge.detach().clone().requires_grad_()
    found, expected = PairAffinity.apply(edge, radius), pair_affinity(twin, radius)
    assert torch.equal(found, expected)
    gradient = torch.randn_like(expected)
    found.backward(gradient)
    expected.backward(gradient)
    assert edge.grad is not None and twin.grad is not None
    assert torch.equal(edge.grad, twin.grad)


def test_a_value_that_is_no_number_is_not_lost(addresses: Addresses) -> None:
    from amn_dist.ops.kernels.affinity import PairAffinity

    edge = torch.rand(1, 8, 11)
    edge[0, 3, 5] = torch.nan
    assert torch.equal(PairAffinity.apply(edge, 3).isnan(), pair_affinity(edge, 3).isnan())


@pytest.mark.parametrize("form", ["torch", "kernel"])
def test_the_gradient_is_that_of_finite_differences(device: str, form: str) -> None:
    from amn_dist.ops.kernels.affinity import PairAffinity

    edge = torch.rand(1, 3, 3, dtype=torch.float64).to(device if form == "kernel" else "cpu").requires_grad_()
    apply = PairAffinity.apply if form == "kernel" else pair_affinity
    assert torch.autograd.gradcheck(lambda x: apply(x, 2), (edge,))


@pytest.mark.parametrize(("radius", "height", "width", "images"), CASES)
@pytest.mark.parametrize("classes", [4, 255])
def test_labels_of_pairs_are_the_twins(
    addresses: Addresses, radius: int, height: int, width: int, images: int, classes: int
) -> None:
    from amn_dist.ops.kernels.affinity import pair_kinds

    labels = torch.tensor([0, 0, 1, 2, 3, 20, 255], dtype=torch.uint8)[torch.randint(7, (images, height, width))]
    for found, expected in zip(pair_kinds(labels, radius, classes), pair_labels(labels, radius, classes), strict=True):
        assert found.dtype == torch.bool and torch.equal(found, expected)
