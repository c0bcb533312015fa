"""The sample order over many shapes of sets and gangs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from amn_dist.errors import ConfigError
from amn_dist.loaders.order import batch_ordinals, epoch_order, steps_per_epoch

SIZES = some.lists(some.integers(1, 9), min_size=1, max_size=12)


@given(sizes=SIZES, seed=some.integers(0, 2**40), epoch=some.integers(0, 1000), window=some.integers(1, 5))
def test_an_epoch_is_a_permutation(sizes: list[int], seed: int, epoch: int, window: int) -> None:
    order = epoch_order(sizes, seed=seed, epoch=epoch, window=window)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(sum(sizes)))


@given(sizes=SIZES, data=some.data(), step=some.integers(0, 40))
def test_ranks_share_a_batch_that_does_not_depend_on_their_number(
    sizes: list[int], data: some.DataObject, step: int
) -> None:
    batch = data.draw(some.integers(1, sum(sizes)))
    world = data.draw(some.integers(1, batch))
    whole = batch_ordinals(sizes, seed=3, step=step, batch=batch, rank=0, world=1)
    shares = [batch_ordinals(sizes, seed=3, step=step, batch=batch, rank=rank, world=world) for rank in range(world)]
    assert np.concatenate(shares).tolist() == whole.tolist()
    assert len(whole) == batch
    assert {len(share) for share in shares} <= {batch // world, -(-batch // world)}


@pytest.mark.parametrize("batch", [1, 3, 7, 40])
def test_steps_walk_through_the_epochs(batch: int) -> None:
    sizes = [11, 2, 30, 7]
    steps = steps_per_epoch(50, batch)
    for epoch in (0, 1, 2):
        order = epoch_order(sizes, seed=5, epoch=epoch)
        walked = [
            batch_ordinals(sizes, seed=5, step=epoch * steps + number, batch=batch, rank=0, world=1)
            for number in range(steps)
        ]
        assert np.concatenate(walked).tolist() == order[: steps * batch].tolist()


def test_seed_and_epoch_change_the_order() -> None:
    orders = {tuple(epoch_order([40, 40], seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_a_window_reads_few_shards_at_a_time() -> None:
    sizes = [10] * 20
    order = epoch_order(sizes, seed=0, epoch=0, window=4)
    for start in range(0, 200, 40):
        assert len({ordinal // 10 for ordinal in order[start : start + 40]}) == 4


def test_samples_of_a_window_are_mixed() -> None:
    order = epoch_order([50] * 8, seed=0, epoch=0)
    assert len({ordinal // 50 for ordinal in order[:40]}) >= 6


def test_a_small_set_packed_class_by_class_is_mixed_whole() -> None:
    order = epoch_order([15] * 16, seed=0, epoch=0)
    for start in range(0, 240, 40):
        assert len({ordinal // 15 for ordinal in order[start : start + 40]}) >= 10


def test_a_large_set_is_read_a_few_shards_at_a_time() -> None:
    order = epoch_order([512] * 24, seed=0, epoch=0)
    for start in range(0, 24 * 512, 8 * 512):
        assert len({ordinal // 512 for ordinal in order[start : start + 8 * 512]}) == 8


@pytest.mark.parametrize(("rank", "world", "batch"), [(0, 1, 11), (0, 1, 0), (2, 2, 4), (0, 5, 4)])
def test_impossible_shares_are_refused(rank: int, world: int, batch: int) -> None:
    with pytest.raises(ConfigError):
        batch_ordinals([5, 5], seed=0, step=0, batch=batch, rank=rank, world=world)
