"""Draws that follow from names and places: the share dropped, independence, both forms equal."""

import numpy as np
import torch

from amn_dist.ops.dropout import _drop_in_torch, named_dropout, seeds_of


def test_the_share_dropped_and_the_scale() -> None:
    x = torch.ones(2, 64, 40, 50)
    dropped = named_dropout(x, ["a"], 0.1)
    assert set(dropped.unique().tolist()) == {0.0, float(np.float32(1 / 0.9))}
    assert abs((dropped == 0).float().mean() - 0.1) < 0.002
    for axis in range(4):  # no line of any axis is favoured
        lines = (dropped == 0).float().mean([a for a in range(4) if a != axis])
        assert (lines - 0.1).abs().max() < 0.03


def test_names_draw_apart_and_shares_do_not_depend_on_their_neighbours() -> None:
    x = torch.randn(4, 16, 9, 11)
    both = named_dropout(x, ["a", "b"], 0.3)
    assert torch.equal(both[:2], named_dropout(x[:2], ["a"], 0.3))
    assert torch.equal(both[2:], named_dropout(x[2:], ["b"], 0.3))
    dropped = [(named_dropout(torch.ones(2, 64, 20, 25), [name], 0.3) == 0).float() for name in "ab"]
    assert abs((dropped[0] * dropped[1]).mean() - 0.09) < 0.01


def test_the_form_of_torch_drops_the_same() -> None:
    x = torch.randn(2, 5, 7, 8)
    out = torch.empty_like(x)
    _drop_in_torch(x, seeds_of("key/0"), round(0.25 * 2**32), 1 / 0.75, out)
    expected = named_dropout(x.permute(0, 3, 1, 2), ["key/0"], 0.25)
    assert torch.equal(out.permute(0, 3, 1, 2), expected) and 0.15 < (out == 0).float().mean() < 0.35
