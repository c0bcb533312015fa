"""What a worker does with a shard: decode, pass the samples through the maps, commit one shard a map."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amn_dist.config import Loader
from amn_dist.loaders.decode import decode_images
from amn_dist.records import Sample
from amn_dist.shards.format import encode
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.shards.writer import write_shard
from amn_dist.verbs import Map, Tally

Row = tuple[str, tuple[int, int], dict[str, bytes]]
"""A sample about to be written: key, (H, W), encoded fields."""


@dataclass(frozen=True)
class Join:
    """A field of an earlier stage, handed to the maps as sample.joined[name]."""

    name: str
    url: str
    field: str


@dataclass(frozen=True)
class Source:
    """The images of a set with the fields of earlier stages beside them, shard by shard."""

    images: str
    joins: tuple[Join, ...]
    loader: Loader
    pixels: bool = True

    def open(self) -> Callable[[int], Iterator[Sample]]:
        """Open every set once; returns the function that reads one shard."""
        images = ShardSet.open(self.images)
        sets = {join.url: ShardSet.open(join.url) for join in self.joins if join.url != self.images}
        for other in sets.values():
            images.join(other)
        sets[self.images] = images

        def read(number: int) -> Iterator[Sample]:
            entries = images.shard(number)
            for entry, pixels in zip(entries, self._pixels(images, entries), strict=True):
                yield Sample(
                    key=entry.key,
                    ordinal=entry.ordinal,
                    image=pixels,
                    tags=images.load(entry.ordinal, "tags"),
                    joined={join.name: sets[join.url].load(entry.ordinal, join.field) for join in self.joins},
                )

        return read

    def _pixels(self, images: ShardSet, entries: tuple[Entry, ...]) -> Iterator[np.ndarray]:
        if not self.pixels:
            return (np.empty((entry.height, entry.width, 0), np.uint8) for entry in entries)
        encoded = ((entry.key, images.image(entry.ordinal)) for entry in entries)
        return decode_images(encoded, loader=self.loader)


@dataclass(frozen=True)
class MapTask:
    """A stream of maps over a set. folders: where each map's shards go, None when they are done already."""

    name: str
    source: Source
    maps: tuple[Map, ...]
    folders: tuple[str | None, ...]

    def open(self) -> Callable[[int], dict[str, Any]]:
        read = self.source.open()
        opened = [step.open() for step in self.maps]

        def work(number: int) -> dict[str, Any]:
            start = time.perf_counter()
            samples = read(number)
            for step, kept in zip(self.maps, opened, strict=True):
                samples = step.run(kept, samples)
            count = self._commit(number, samples)
            return {"images": count, "seconds": round(time.perf_counter() - start, 3)}

        return work

    def _commit(self, number: int, samples: Iterator[Sample]) -> int:
        rows: list[list[Row]] = [[] for _ in self.maps]
        count = 0
        for sample in samples:
            count += 1
            for step, folder, kept in zip(self.maps, self.folders, rows, strict=True):
                if folder is not None:
                    made = sample.made[step.name]
                    kept.append((sample.key, sample.image.shape[:2], {f: encode(f, made[f]) for f in step.fields}))
        for folder, kept in zip(self.folders, rows, strict=True):
            if folder is not None:
                write_shard(Path(folder), number, kept)
        return count


@dataclass(frozen=True)
class TallyTask:
    """Counts over a set; the counts are the record."""

    name: str
    source: Source
    tally: Tally

    def open(self) -> Callable[[int], dict[str, np.ndarray]]:
        read = self.source.open()
        opened = self.tally.open()
        return lambda number: self.tally.count(opened, read(number))
