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
from amn_dist.loaders.decode import crop_decoder, decoding_device, leaves_bytes, training_threads
from amn_dist.loaders.decoder import Encoded
from amn_dist.loaders.order import batch_ordinals, check_world, steps_per_epoch
from amn_dist.loaders.prefetch import map_ahead
from amn_dist.records import Batch, CropRule
from amn_dist.shards.shardset import ShardSet


@dataclass(frozen=True, slots=True)
class SamplePosition:
    """A sample in the order of training."""

    epoch: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class SampleBytes:
    """A sample's bytes. tags: uint8[C-1]."""

    ordinal: int
    encoded: Encoded
    tags: np.ndarray


@dataclass(frozen=True)
class SampleReader:
    """Reads samples; labels lie in a field of another set over the same keys."""

    images: ShardSet
    labels: tuple[ShardSet, str] | None
    rule: CropRule
    seed: int

    def __call__(self, position: SamplePosition) -> SampleBytes:
        ordinal = position.ordinal
        entry = self.images.entry(ordinal)
        crop = draw_crop(self.rule, entry.height, entry.width, seed=self.seed, epoch=position.epoch, ordinal=ordinal)
        label = None if self.labels is None else self.labels[0].read(ordinal, self.labels[1])
        encoded = Encoded(entry.key, self.images.image(ordinal), crop, label)
        return SampleBytes(ordinal, encoded, self.images.load(ordinal, "tags"))


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
    trains_on: str = "cpu",
) -> Iterator[Batch]:
    """This rank's part of every global batch, epoch after epoch, beginning at global sample `consumed`.

    batch: images a step over all ranks. labels: a set over the same keys, and its field of 8-bit ids.
    trains_on: `cuda` or `cpu`; decides where DALI decodes, and leaves the images, whether they are normalised on the
    way (carried.py), and with how many threads, on which the content does not depend.
    Raises ConfigError for a batch that cannot be cut so, and for a loader.device that is not there; ShardError for sets
    that do not fit or a sample that is bad.
    """
    steps_per_epoch(len(images), batch)
    check_world(batch, rank, world)
    if consumed < 0 or consumed % batch:
        raise ConfigError(f"consumed {consumed}: expected a multiple of the batch {batch}; resume with the same batch")
    if labels is not None:
        _check_labels(images, labels)
    positions = _positions(images, batch=batch, seed=seed, step=consumed // batch, rank=rank, world=world)
    return _decoded(positions, SampleReader(images, labels, rule, seed), loader, trains_on)


def _check_labels(images: ShardSet, labels: tuple[ShardSet, str]) -> None:
    label_set, field = labels
    images.join(label_set)
    if field not in label_set.fields:
        raise ShardError(f"{label_set.url}: no field {field}; found {printable(', '.join(label_set.fields))}")


def _positions(
    images: ShardSet, *, batch: int, seed: int, step: int, rank: int, world: int
) -> Iterator[list[SamplePosition]]:
    sizes = images.shard_sizes
    epoch_steps = steps_per_epoch(len(images), batch)
    for number in count(step):
        ordinals = batch_ordinals(sizes, seed=seed, step=number, batch=batch, rank=rank, world=world)
        yield [SamplePosition(number // epoch_steps, int(ordinal)) for ordinal in ordinals]


def _decoded(
    positions: Iterator[list[SamplePosition]], reader: SampleReader, loader: Loader, trains_on: str
) -> Iterator[Batch]:
    device, threads = decoding_device(loader, trains_on), training_threads(loader, trains_on)
    raw = leaves_bytes(reader.rule, trains_on, device)
    decode = crop_decoder(reader.rule, loader=loader, device=device, threads=threads, raw=raw)
    pending: deque[list[SampleBytes]] = deque()

    def encoded(groups: Iterator[list[SampleBytes]]) -> Iterator[list[Encoded]]:
        for group in groups:
            pending.append(group)
            yield [sample.encoded for sample in group]

    with (
        closing(map_ahead(reader, positions, threads=threads, depth=loader.ahead)) as samples,
        closing(decode(encoded(samples))) as decoded,
    ):
        for image, label in decoded:
            group = pending.popleft()
            yield Batch(
                keys=tuple(sample.encoded.key for sample in group),
                ordinals=tuple(sample.ordinal for sample in group),
                image=image,
                tags=torch.from_numpy(np.stack([sample.tags for sample in group])).float(),
                label=label,
                boxes=torch.tensor([sample.encoded.crop.box for sample in group]) if raw else None,
            )
