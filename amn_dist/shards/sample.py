"""A few images of a set as a set of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import index_all, write_shard


def evenly(total: int, count: int) -> list[int]:
    """Positions of `count` things over `total`, all of them where there are no more."""
    taken = min(count, total)
    return [place * total // taken for place in range(taken)]


def write_sample(images: ShardSet, folder: Path, *, count: int, shard_size: int) -> None:
    """Write `count` images of a set, evenly chosen, with all their fields, in shards of shard_size."""
    ordinals = evenly(len(images), count)
    starts = range(0, len(ordinals), shard_size)
    for number, start in enumerate(starts):
        write_shard(folder, number, _rows(images, ordinals[start : start + shard_size]))
    index_all(folder, kind=images.kind, classes=images.classes, count=len(starts))


def _rows(images: ShardSet, ordinals: Sequence[int]) -> list[tuple[str, tuple[int, int], dict[str, bytes]]]:
    entries = [images.entry(ordinal) for ordinal in ordinals]
    return [
        (entry.key, (entry.height, entry.width), {field: images.read(entry.ordinal, field) for field in entry.fields})
        for entry in entries
    ]
