"""Shard sets to training batches: endless, deterministic, resumable from one integer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from amn_dist.config import Loader
from amn_dist.errors import ConfigError, ShardError, printable
from amn_dist.loaders.crops import draw_crop
from amn_dist.loaders.decode import Encoded, crop_decoder
from amn_dist.loaders.order import batch_ordinals, check_world, steps_per_epoch
from amn_dist.loaders.prefetch import ahead
from amn_dist.records import Batch, CropRule
from amn_dist.shards.shardset import ShardSet


@dataclass(frozen=True, slots=True)
class Place:
    """A sample in the order of training."""

    epoch: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Read:
    """A sample's bytes. tags: uint8[C-1]."""

    ordinal: int
    encoded: Encoded
    tags: np.ndarray


@dataclass(frozen=True)
class Reader:
    """Reads samples; labels lie in a field of another set over the same keys."""

    images: ShardSet
    labels: tuple[ShardSet, str] | None
    rule: CropRule
    seed: int

    def __call__(self, place: Place) -> Read:
        ordinal = place.ordinal
        entry = self.images.entry(ordinal)
        crop = draw_crop(self.rule, entry.height, entry.width, seed=self.seed, epoch=place.epoch, ordinal=ordinal)
        label = None if self.labels is None else self.labels[0].read(ordinal, self.labels[1])
        encoded = Encoded(entry.key, self.images.image(ordinal), crop, label)
        return Read(ordinal, encoded, self.images.load(ordinal, "tags"))


def batches(
    images: ShardSet,
    labels: tuple[ShardSet, str] | None,
    *,
    rule: CropRule,
    batch: int,
    seed: int,
    consumed: int = 0,
    rank: int = 0,
    world: int = 1,
    loader: Loader,
    device: str = "cpu",
) -> Iterator[Batch]:
    """This rank's part of every global batch, epoch after epoch, beginning at global sample `consumed`.

    batch: images a step over all ranks. labels: a set over the same keys, and its field of 8-bit ids.
    device: `gpu` lets DALI decode there and leave the images there. The content does not depend on loader.threads.
    Raises ConfigError for a batch that cannot be cut so, ShardError for sets that do not fit or a sample that is bad.
    """
    steps_per_epoch(len(images), batch)
    check_world(batch, rank, world)
    if consumed < 0 or consumed % batch:
        raise ConfigError(f"consumed {consumed}: expected a multiple of the batch {batch}; resume with the same batch")
    if labels is not None:
        _check_labels(images, labels)
    places = _places(images, batch=batch, seed=seed, step=consumed // batch, rank=rank, world=world)
    return _decoded(places, Reader(images, labels, rule, seed), loader, device)


def _check_labels(images: ShardSet, labels: tuple[ShardSet, str]) -> None:
    made, field = labels
    images.join(made)
    if field not in made.fields:
        raise ShardError(f"{made.url}: no field {field}; found {printable(', '.join(made.fields))}")


def _places(images: ShardSet, *, batch: int, seed: int, step: int, rank: int, world: int) -> Iterator[list[Place]]:
    sizes = images.shard_sizes
    an_epoch = steps_per_epoch(len(images), batch)
    for now in count(step):
        ordinals = batch_ordinals(sizes, seed=seed, step=now, batch=batch, rank=rank, world=world)
        yield [Place(now // an_epoch, int(ordinal)) for ordinal in ordinals]


def _decoded(places: Iterator[list[Place]], reader: Reader, loader: Loader, device: str) -> Iterator[Batch]:
    decode = crop_decoder(reader.rule, loader=loader, device=device)
    begun: deque[list[Read]] = deque()

    def encoded(reads: Iterator[list[Read]]) -> Iterator[list[Encoded]]:
        for group in reads:
            begun.append(group)
            yield [read.encoded for read in group]

    with (
        closing(ahead(reader, places, threads=loader.threads, depth=loader.ahead)) as reads,
        closing(decode(encoded(reads))) as decoded,
    ):
        for image, label in decoded:
            group = begun.popleft()
            yield Batch(
                keys=tuple(read.encoded.key for read in group),
                ordinals=tuple(read.ordinal for read in group),
                image=image,
                tags=torch.from_numpy(np.stack([read.tags for read in group])).float(),
                label=label,
            )
