"""Which sample is seen when: a pure function of shard sizes, seed and step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amn_dist.errors import ConfigError

WINDOW, MIXED = 8, 4096
"""Least shards, and samples in them on average, that are mixed: a rank reads so many shards at a time; a small set is
mixed whole, lest one that was packed class by class be learned class by class."""

_SHARDS, _SAMPLES = 1, 2


def epoch_order(shard_sizes: Sequence[int], *, seed: int, epoch: int, window: int | None = None) -> np.ndarray:
    """Ordinals of one epoch, int64[N]: the shards are shuffled, then the samples inside windows of several shards.

    window: shards of a window; None: as many as WINDOW and MIXED ask for.
    """
    return _order_slice(shard_sizes, 0, sum(shard_sizes), seed=seed, epoch=epoch, window=window)


def batch_ordinals(
    shard_sizes: Sequence[int], *, seed: int, step: int, batch: int, rank: int, world: int
) -> np.ndarray:
    """Ordinals of this rank's part of a global step, int64; over the ranks they join to the global batch.

    The global batch does not depend on `world`; the last N % batch samples of an epoch are left out.
    """
    epoch, number = divmod(step, steps_per_epoch(sum(shard_sizes), batch))
    check_world(batch, rank, world)
    start, stop = (number * batch + batch * part // world for part in (rank, rank + 1))
    return _order_slice(shard_sizes, start, stop, seed=seed, epoch=epoch)


def steps_per_epoch(samples: int, batch: int) -> int:
    """Whole global batches in an epoch. Raises ConfigError when there is none."""
    if not 1 <= batch <= samples:
        raise ConfigError(f"batch {batch}: expected 1 to {samples}, the size of the training set; set a smaller batch")
    return samples // batch


def check_world(batch: int, rank: int, world: int) -> None:
    """Raise ConfigError unless the rank exists and every rank gets at least one sample of a batch."""
    if not 0 <= rank < world:
        raise ConfigError(f"rank {rank}: expected 0 to {world - 1}; check RANK and WORLD_SIZE")
    if world > batch:
        raise ConfigError(f"batch {batch}: {world} processes need at least one image each; use fewer processes")


def _order_slice(
    shard_sizes: Sequence[int], start: int, stop: int, *, seed: int, epoch: int, window: int | None = None
) -> np.ndarray:
    """Positions start to stop of an epoch's order; only the windows they lie in are shuffled."""
    sizes = np.asarray(shard_sizes, np.int64)
    window = window or max(WINDOW, -(-MIXED * len(sizes) // max(int(sizes.sum()), 1)))
    firsts = np.cumsum(sizes) - sizes
    shards = _generator(seed, epoch, _SHARDS).permutation(len(sizes))
    pieces = [np.empty(0, np.int64)]
    position = 0
    for number, first in enumerate(range(0, len(shards), window)):
        members = shards[first : first + window]
        count = int(sizes[members].sum())
        if position < stop and start < position + count:
            ordinals = np.concatenate([np.arange(firsts[m], firsts[m] + sizes[m]) for m in members])
            mixed = _generator(seed, epoch, _SAMPLES, number).permutation(ordinals)
            pieces.append(mixed[max(start - position, 0) : stop - position])
        position += count
    return np.concatenate(pieces)


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
