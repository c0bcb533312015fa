"""Pair affinity, its gradient and the labels of pairs as kernels, against what torch does on a CPU."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

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


class Operations(TorchDispatchMode):
    """Counts what a device would launch for torch: everything but views and fresh memory."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        self.count += not (func.is_view or "empty" in name or name.endswith(("::detach", "::_unsafe_view")))
        return func(*args, **(kwargs or {}))


def test_the_loss_and_its_gradient_are_few_launches(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number depends neither on the radius nor on the size, so that small ones tell."""
    from amn_dist.models import irn
    from amn_dist.ops.kernels import affinity

    edge, labels = torch.randn(2, 1, 7, 9), torch.tensor([0, 1, 2, 255], dtype=torch.uint8)[torch.randint(4, (2, 7, 9))]
    expected = irn.affinity_losses(edge, labels, 3, 3)
    launches = []
    launch, operations = affinity.launch, Operations()

    def counted(*arguments: Any, **constants: Any) -> None:
        launches.append(arguments[0])
        before = operations.count
        launch(*arguments, **constants)
        operations.count = before  # the interpreter copies what it is given

    monkeypatch.setattr(affinity, "launch", counted)
    monkeypatch.setattr(irn, "pair_affinity", affinity.PairAffinity.apply)
    monkeypatch.setattr(irn, "pair_labels", affinity.pair_kinds)
    edge.requires_grad_()
    with operations:
        positive, negative = irn.affinity_losses(edge, labels, 3, 3)
        ((positive + negative) / 2).backward()
    assert torch.equal(positive, expected[0]) and torch.equal(negative, expected[1])
    assert len(launches) == 4 and 20 <= operations.count <= 80
