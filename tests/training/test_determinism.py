"""What a Fit tells torch about algorithms, and that torch forgets it afterwards."""

from __future__ import annotations

import pytest
import torch

import amn_dist.models.precision
from amn_dist.errors import StageError
from amn_dist.training.determinism import WORKSPACE, algorithms


def told() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("deterministic", [False, True])
def test_torch_is_told_for_the_time_of_a_fit(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    before = told()
    with algorithms(deterministic=deterministic):
        assert told() == (not deterministic, deterministic, deterministic)
    with pytest.raises(KeyError), algorithms(deterministic=deterministic):
        raise KeyError
    assert told() == before


def test_an_operation_that_cannot_be_repeated_ends_a_fit_in_words() -> None:
    x = torch.zeros(2, 2)
    said = r"engine\.deterministic: .*put_.*set engine\.deterministic=false"
    with pytest.raises(StageError, match=said), algorithms(deterministic=True):
        x.put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
    with pytest.raises(RuntimeError, match="shape"), algorithms(deterministic=True):
        x.view(3)


def test_float32_is_no_tf32() -> None:
    assert amn_dist.models.precision.resolve_precision("fp32") == torch.float32
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
