"""Dropout of training: each sample's draws are its own."""

from __future__ import annotations

import pytest
import torch

from amn_dist.ops.sample_dropout import sample_dropout


def test_a_sample_is_dropped_alike_in_any_batch_and_layout() -> None:
    x = torch.rand(4, 16, 7, 9) + 1
    whole = sample_dropout(x, [3, 1, 4, 2**63 - 1], 0.3)
    assert torch.equal(whole[1:3], sample_dropout(x[1:3], [1, 4], 0.3))
    assert torch.equal(whole, sample_dropout(x.to(memory_format=torch.channels_last), [3, 1, 4, 2**63 - 1], 0.3))
    assert not torch.equal(whole == 0, sample_dropout(x, [3, 1, 4, 2**63 - 1], 0.3, layer=1) == 0)
    assert not torch.equal(whole[0] == 0, whole[1] == 0)


def test_the_share_is_dropped_and_the_rest_scaled_up() -> None:
    x = torch.rand(2, 64, 20, 25, requires_grad=True)
    dropped = sample_dropout(x, [1, 2], 0.3)
    gone = dropped == 0
    assert gone.float().mean().item() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(dropped, x / 0.7 * ~gone)
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, (~gone).float() / 0.7)


def test_a_number_is_wanted_for_every_sample() -> None:
    with pytest.raises(ValueError, match="1 draws, expected one for each of 2 samples"):
        sample_dropout(torch.ones(2, 3, 4, 4), [1], 0.5)
