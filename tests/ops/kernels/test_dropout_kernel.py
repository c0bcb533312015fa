"""Named dropout as a kernel, against the compiled one."""

import pytest
import torch

from amn_dist.ops.dropout import named_dropout, seeds_of
from tests.ops.kernels.conftest import Addresses


@pytest.mark.parametrize(("shape", "rate"), [((2, 5, 7, 8), 0.25), ((3, 64, 9, 11), 0.1), ((1, 1, 1, 1), 0.5)])
def test_the_same_values_are_dropped(addresses: Addresses, shape: tuple[int, int, int, int], rate: float) -> None:
    from amn_dist.ops.kernels.dropout import drop

    x = torch.randn(*shape)
    for name in ("key/0", "another"):
        out = torch.empty_like(x)
        drop(x, seeds_of(name), round(rate * 2**32), 1 / (1 - rate), out)
        expected = named_dropout(x.permute(0, 3, 1, 2), [name], rate)
        assert torch.equal(out.permute(0, 3, 1, 2), expected)


@pytest.mark.gpu
def test_a_device_drops_what_a_cpu_drops() -> None:
    x = torch.randn(4, 16, 9, 11)
    dropped = named_dropout(x.cuda(), ["a", "b"], 0.1)
    assert dropped.is_cuda and torch.equal(dropped.cpu(), named_dropout(x, ["a", "b"], 0.1))
