"""Draws that follow from names and places: the share dropped, independence, both forms equal."""

import numpy as np
import torch

from amn_dist.ops.dropout import _seeds, draws, named_dropout


def test_the_share_dropped_and_the_scale() -> None:
    x = torch.ones(2, 64, 40, 50)
    found = named_dropout(x, ["a"], 0.1)
    assert set(found.unique().tolist()) == {0.0, float(np.float32(1 / 0.9))}
    assert abs((found == 0).float().mean() - 0.1) < 0.002
    for axis in range(4):  # no line of any axis is favoured
        lines = (found == 0).float().mean([a for a in range(4) if a != axis])
        assert (lines - 0.1).abs().max() < 0.03


def test_names_draw_apart_and_shares_do_not_depend_on_their_neighbours() -> None:
    x = torch.randn(4, 16, 9, 11)
    both = named_dropout(x, ["a", "b"], 0.3)
    assert torch.equal(both[:2], named_dropout(x[:2], ["a"], 0.3))
    assert torch.equal(both[2:], named_dropout(x[2:], ["b"], 0.3))
    dropped = [(named_dropout(torch.ones(2, 64, 20, 25), [name], 0.3) == 0).float() for name in "ab"]
    assert abs((dropped[0] * dropped[1]).mean() - 0.09) < 0.01


def test_the_form_for_accelerators_draws_the_same() -> None:
    x = torch.ones(2, 8, 5, 7)
    kept = (draws(_seeds("key/0"), x.numel(), "cpu") >= round(0.25 * 2**32)).view(2, 5, 7, 8).permute(0, 3, 1, 2)
    assert torch.equal(named_dropout(x, ["key/0"], 0.25) > 0, kept)
