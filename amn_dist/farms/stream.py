"""What workers do with a chunk: decode, pass the samples through the maps; a shard's rows are committed once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, islice
from typing import Any

import numpy as np

from amn_dist.config import Loader
from amn_dist.farms.farm import Chunk
from amn_dist.farms.shortage import noted, telling_shortage
from amn_dist.interfaces import Map, Needs, Tally
from amn_dist.loaders.bounded import bounded, enlarged, full_size
from amn_dist.loaders.decode import decode_images, image_threads
from amn_dist.loaders.evidence import on_host
from amn_dist.loaders.prefetch import map_ahead, read_ahead
from amn_dist.ops.arrays import as_array
from amn_dist.records import Evidence, Sample
from amn_dist.shards.format import encode
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.shards.writer import write_shard

Row = tuple[str, tuple[int, int], dict[str, bytes]]
"""A sample about to be written: key, (H, W), encoded fields."""

REPORTS = 2
"""Shards of every set whose reports a worker remembers: what it needs does not grow with the set."""

ReadChunks = Callable[..., Iterator[Sample]]
"""The samples of the chunks it is given, in order."""
TOGETHER = 256
"""Samples that a worker with a GPU is given at least while there are: groups of one size are formed over them."""
AHEAD = 64
"""Samples read before the network asks for them, in a thread of their own."""
ENCODERS = 4
"""Threads that encode what a GPU's worker has made."""
JOINERS = 2
"""Threads that read and decode what earlier stages made, for a GPU's worker."""


@dataclass(frozen=True)
class Join:
    """A field of an earlier stage, handed to the maps as sample.joined[name]. digest: of the set it lies in."""

    name: str
    url: str
    field: str
    digest: str | None = None


@dataclass(frozen=True)
class Source:
    """The images of a set with the fields of earlier stages beside them, chunk by chunk."""

    images: str
    joins: tuple[Join, ...]
    loader: Loader
    pixels: bool = True
    digest: str | None = None
    """Of the images; a set that has changed since is refused, wherever it is opened."""
    joiners: int = 0
    """Threads that read and decode the fields of earlier stages; 0: whoever asks for samples."""
    keys: frozenset[str] | None = None
    """Of the samples that are read; None: all."""

    def open(self) -> ReadChunks:
        """Open every set once; returns the function that reads chunks, after comparing the keys of their shards."""
        images = ShardSet.open(self.images, reports=REPORTS, digest=self.digest)
        digests = {join.url: join.digest for join in self.joins if join.url != self.images}
        others = {url: ShardSet.open(url, reports=REPORTS, digest=digest) for url, digest in digests.items()}
        for other in others.values():
            images.join(other, shards=())
        sets = {**others, self.images: images}

        def read(*chunks: Chunk) -> Iterator[Sample]:
            for other in others.values():
                images.join(other, shards=tuple(dict.fromkeys(chunk.shard for chunk in chunks)))
            entries = [entry for chunk in chunks for entry in images.shard(chunk.shard)[chunk.start : chunk.stop]]
            if self.keys is not None:
                entries = [entry for entry in entries if entry.key in self.keys]
            parts = zip(entries, self._pixels(images, entries), self._joined(sets, entries), strict=True)
            for entry, pixels, joined in parts:
                tags = images.load(entry.ordinal, "tags")
                yield bounded(Sample(entry.key, entry.ordinal, pixels, tags, joined))

        return read

    def _joined(self, sets: Mapping[str, ShardSet], entries: Sequence[Entry]) -> Iterator[dict[str, np.ndarray]]:
        """What earlier stages made of the samples, by name."""

        def load(entry: Entry) -> dict[str, np.ndarray]:
            return {join.name: sets[join.url].load(entry.ordinal, join.field) for join in self.joins}

        if not (self.joins and self.joiners):
            return map(load, entries)
        groups = ([entry] for entry in entries)
        ahead = map_ahead(load, groups, threads=self.joiners, depth=2 * self.joiners, name="join")
        return chain.from_iterable(ahead)

    def _pixels(self, images: ShardSet, entries: Sequence[Entry]) -> Iterator[np.ndarray]:
        if not self.pixels:
            return (np.empty((entry.height, entry.width, 0), np.uint8) for entry in entries)
        encoded = ((entry.key, images.image(entry.ordinal)) for entry in entries)
        return decode_images(encoded, loader=self.loader)


@dataclass(frozen=True)
class MapLeg:
    """Neighbouring maps of a stream. source: where the first leg reads. Every leg but the last passes its samples on
    with their full-size maps; the last returns rows by map."""

    maps: tuple[Map, ...]
    needs: Needs
    source: Source | None = None
    written: tuple[tuple[str, tuple[str, ...]], ...] | None = None
    """Of the last leg: names and fields of the maps whose rows are written."""
    accelerated: bool = False
    """Whether its network runs on a GPU: then reading, the network and encoding have threads of their own."""

    @property
    def name(self) -> str:
        return "+".join(step.name for step in self.maps)

    @property
    def together(self) -> int:
        """Samples that are best read at a time, in whole chunks."""
        return TOGETHER if self.accelerated and self.source is not None else 0

    def fed_by(self, cores: int) -> MapLeg:
        """The leg where a GPU has so many cores beside it, if it reads for one."""
        if not self.accelerated or self.source is None:
            return self
        loader = self.source.loader
        threads = loader.model_copy(update={"threads": image_threads(loader, cores)})
        return replace(self, source=replace(self.source, loader=threads, joiners=JOINERS))

    def open(self) -> MapWork:
        read = None if self.source is None else self.source.open()
        return MapWork(self, read, [step.open() for step in self.maps])


@dataclass(frozen=True)
class MapWork:
    """A leg that a worker has opened. read: of a leg that begins a stream. opened: what its maps keep."""

    leg: MapLeg
    read: ReadChunks | None
    opened: Sequence[Any]

    def __call__(self, chunk: Chunk, passed: Any) -> Any:
        if self.read is not None:
            return self.bundle([chunk])[0]
        handed: list[Sample] = []
        with telling_shortage(self.leg.name, handed):
            return self._result(self._mapped(noted(owned(passed), handed)))

    def bundle(self, chunks: Sequence[Chunk]) -> list[Any]:
        """What the leg makes of several chunks at once, for each the same as alone."""
        assert self.read is not None, "only the first leg of a stream reads chunks"
        handed: list[Sample] = []
        with closing(self._source(chunks)) as source, telling_shortage(self.leg.name, handed):
            samples = self._mapped(noted(source, handed))
            return [self._result(islice(samples, len(chunk))) for chunk in chunks]

    def _source(self, chunks: Sequence[Chunk]) -> Generator[Sample]:
        assert self.read is not None
        if self.leg.accelerated:
            return read_ahead(self.read(*chunks), depth=AHEAD)
        return (sample for sample in self.read(*chunks))

    def _mapped(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        for step, loaded in zip(self.leg.maps, self.opened, strict=True):
            samples = step.run(loaded, samples)
        return samples

    def _result(self, samples: Iterator[Sample]) -> Any:
        if self.leg.written is None:
            return on_host(list(samples))
        return rows_of(samples, self.leg.written, threads=ENCODERS if self.leg.accelerated else 0)


@dataclass(frozen=True)
class MapTask:
    """A stream of maps over a set. folders: where each map's shards go, None when they are done already.

    sizes: samples of every shard. chunk: samples a worker does at a time. accelerated: whether networks run on GPUs.
    """

    name: str
    source: Source
    maps: tuple[Map, ...]
    folders: tuple[str | None, ...]
    sizes: tuple[int, ...]
    chunk: int
    accelerated: bool = False

    def chunks(self, number: int) -> tuple[Chunk, ...]:
        size = self.sizes[number]
        return tuple(Chunk(number, start, min(start + self.chunk, size)) for start in range(0, size, self.chunk))

    def legs(self, *, split: bool) -> tuple[MapLeg, ...]:
        groups = [tuple(group) for _, group in groupby(self.maps, key=lambda step: split and step.needs)]
        devices = [self.accelerated and "network" in {step.needs for step in group} for group in groups]
        legs = [MapLeg(group, group[0].needs, accelerated=on) for group, on in zip(groups, devices, strict=True)]
        legs[0] = replace(legs[0], source=self.source)
        legs[-1] = replace(legs[-1], written=tuple((step.name, step.fields) for step, _ in self._written()))
        return tuple(legs)

    def finish(self, number: int, parts: Sequence[list[list[Row]]]) -> dict[str, int]:
        """Write one shard a map from the rows of its chunks."""
        for (_, folder), rows in zip(self._written(), zip(*parts, strict=True), strict=True):
            write_shard(folder, number, chain.from_iterable(rows))
        return {"images": self.sizes[number]}

    def _written(self) -> list[tuple[Map, str]]:
        return [(step, folder) for step, folder in zip(self.maps, self.folders, strict=True) if folder is not None]


def owned(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples with arrays of their own: what comes out of shared memory is read-only, and maps may write."""
    for sample in samples:
        evidence = sample.evidence
        yield replace(
            sample,
            image=sample.image.copy(),
            evidence=None if evidence is None else _owned_evidence(evidence),
            logits=None if sample.logits is None else sample.logits.copy(),
            joined={name: value.copy() for name, value in sample.joined.items()},
        )


def _owned_evidence(evidence: Evidence) -> Evidence:
    decided = None if evidence.decided is None else evidence.decided.copy()
    return Evidence(evidence.classes.copy(), evidence.coarse.copy(), as_array(evidence.fine).copy(), decided)


def rows_of(
    samples: Iterable[Sample], written: Sequence[tuple[str, tuple[str, ...]]], *, threads: int = 0
) -> list[list[Row]]:
    """Encoded rows by map, of the samples as they come. threads: that encode, beside the one that asks for samples;
    labels are then encoded quickly (shards/label_runs.py), for a GPU makes them faster than cores find matches."""
    if not threads:
        rows = [_rows(sample, written, quick=False) for sample in samples]
    else:
        encoding = partial(_rows, written=written, quick=True)
        groups = ([sample] for sample in samples)
        rows = list(chain.from_iterable(map_ahead(encoding, groups, threads=threads, depth=4 * threads)))
    return [[row[place] for row in rows] for place in range(len(written))]


def _rows(sample: Sample, written: Sequence[tuple[str, tuple[str, ...]]], *, quick: bool) -> list[Row]:
    """The row of a sample in every map that is written."""
    size = full_size(sample)
    return [
        (sample.key, size, {f: encode(f, enlarged(f, sample.made[name][f], sample), quick=quick) for f in fields})
        for name, fields in written
    ]


@dataclass(frozen=True)
class TallyLeg:
    """Counts a chunk."""

    source: Source
    tally: Tally
    needs: Needs = "cpu"

    @property
    def name(self) -> str:
        return self.tally.name

    def open(self) -> Callable[[Chunk, Any], dict[str, np.ndarray]]:
        read = self.source.open()
        opened = self.tally.open()
        return lambda chunk, passed: self.tally.count(opened, read(chunk))


@dataclass(frozen=True)
class TallyTask:
    """Counts over a set, a shard at a time; the counts are the record."""

    name: str
    source: Source
    tally: Tally
    sizes: tuple[int, ...]

    def chunks(self, number: int) -> tuple[Chunk, ...]:
        return (Chunk(number, 0, self.sizes[number]),)

    def legs(self, *, split: bool) -> tuple[TallyLeg, ...]:
        return (TallyLeg(self.source, self.tally),)

    def finish(self, number: int, parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return parts[0]
