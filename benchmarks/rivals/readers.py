"""Who hands out training crops: ours, the webdataset library's loader, and torchdata's over the same shards.

A reader goes through one epoch from a state on and yields crops with the state behind them. All cut the same crop of a
sample, which depends on seed, epoch and ordinal, with the same decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import webdataset
from torch import Tensor
from torch.utils.data import Dataset

from amn_dist.config import Loader
from amn_dist.loaders.batches import batches
from amn_dist.loaders.crops import draw_crop
from amn_dist.loaders.decoder import Encoded
from amn_dist.loaders.order import steps_per_epoch
from amn_dist.loaders.torchvision import TorchvisionCrops
from amn_dist.records import CropRule
from amn_dist.shards.shardset import ShardSet

BUFFER = 1000
"""Samples in the library's shuffle buffer, its documentation's number."""
FORK = "fork"
"""How their worker processes begin: the fastest way."""


@dataclass(frozen=True)
class Reading:
    """One epoch of one rank. batch: images a step over all ranks. workers: threads, or processes of a DataLoader."""

    folder: str
    batch: int
    rule: CropRule
    workers: int = 2
    rank: int = 0
    world: int = 1
    seed: int = 0


class Crops(NamedTuple):
    """image: f32[B, 3, S, S]."""

    keys: tuple[str, ...]
    image: Tensor


Epoch = Iterator[tuple[Crops, Callable[[], Any]]]
"""Crops, and what tells the state that goes on behind them."""
Reader = Callable[[Reading, Any], Epoch]
"""The rest of an epoch from a state on; None: all of it."""


class Cutter:
    """Cuts the crops of a set's samples in the process and thread that calls it."""

    def __init__(self, reading: Reading) -> None:
        found = ShardSet.open(reading.folder)
        entries = (entry for shard in range(len(found.shard_sizes)) for entry in found.shard(shard))
        self.samples = {entry.key: (entry.ordinal, entry.height, entry.width) for entry in entries}
        self.rule, self.seed = reading.rule, reading.seed
        self.decode = TorchvisionCrops(reading.rule, threads=1, ahead=1)

    def encoded(self, key: str, photo: bytes) -> Encoded:
        ordinal, height, width = self.samples[key]
        return Encoded(key, photo, draw_crop(self.rule, height, width, seed=self.seed, epoch=0, ordinal=ordinal))

    def of_photos(self, samples: Sequence[Encoded]) -> Crops:
        """Crops of samples whose bytes are at hand."""
        ((image, _),) = self.decode([samples])
        return Crops(tuple(sample.key for sample in samples), image)

    def of_members(self, samples: Sequence[dict[str, Any]]) -> Crops:
        """Crops of samples as the library reads them."""
        return self.of_photos([self.encoded(one["__key__"], one.get("jpg") or one["png"]) for one in samples])


class ShardPhotos(Dataset[Encoded]):
    """A shard set as torch wants a set: photos by ordinal, opened where they are read."""

    def __init__(self, reading: Reading) -> None:
        self.reading, self.cutter = reading, Cutter(reading)
        self.shards: ShardSet | None = None

    def __len__(self) -> int:
        return len(self.cutter.samples)

    def __getitem__(self, ordinal: int) -> Encoded:
        if self.shards is None:
            self.shards = ShardSet.open(self.reading.folder)
        return self.cutter.encoded(self.shards.entry(ordinal).key, self.shards.image(ordinal))

    def crops(self, ordinals: Sequence[int]) -> Crops:
        return self.cutter.of_photos([self[ordinal] for ordinal in ordinals])


def ours(reading: Reading, state: Any) -> Epoch:
    """loaders/batches.py. State: steps."""
    found, first = ShardSet.open(reading.folder), state or 0
    source = batches(
        found,
        None,
        rule=reading.rule,
        batch=reading.batch,
        seed=reading.seed,
        consumed=first * reading.batch,
        rank=reading.rank,
        world=reading.world,
        loader=Loader(name="torchvision", threads=reading.workers),
    )
    with closing(source):  # type: ignore[type-var]
        for step in range(first, steps_per_epoch(len(found), reading.batch)):
            batch = next(source)
            yield Crops(batch.keys, batch.image), partial(int, step + 1)


def library(reading: Reading, state: Any) -> Epoch:
    """webdataset's WebLoader. It has no state: what has been seen is read again and left out; state: batches."""
    loader = webdataset.WebLoader(
        pipeline(reading), batch_size=None, num_workers=reading.workers, multiprocessing_context=FORK
    )
    for number, crops in enumerate(loader, 1):
        if number > (state or 0):
            yield crops, partial(int, number)


def stateful_library(reading: Reading, state: Any) -> Epoch:
    """torchdata's StatefulDataLoader over webdataset's pipeline."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    yield from resumed(
        StatefulDataLoader(
            pipeline(reading), batch_size=None, num_workers=reading.workers, multiprocessing_context=FORK
        ),
        state,
    )


def stateful_shards(reading: Reading, state: Any) -> Epoch:
    """torchdata's StatefulDataLoader over our shard set, in the order of its distributed sampler."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    photos = ShardPhotos(reading)
    loader = StatefulDataLoader(
        photos,
        batch_size=reading.batch // reading.world,
        sampler=random_order(reading, photos),
        num_workers=reading.workers,
        multiprocessing_context=FORK,
        collate_fn=photos.cutter.of_photos,
    )
    yield from resumed(loader, state)


def nodes_shards(reading: Reading, state: Any) -> Epoch:
    """torchdata's nodes over our shard set: the same sampler, batches cut by threads."""
    from torchdata import nodes

    photos = ShardPhotos(reading)
    order = nodes.SamplerWrapper(random_order(reading, photos))
    groups = nodes.Batcher(order, reading.batch // reading.world, drop_last=False)
    cut = nodes.ParallelMapper(groups, photos.crops, num_workers=max(reading.workers, 1), method="thread")
    yield from resumed(nodes.Loader(cut, restart_on_stop_iteration=False), state)


READERS: dict[str, Reader] = {
    "amn-dist": ours,
    "webdataset": library,
    "torchdata, webdataset": stateful_library,
    "torchdata, shard set": stateful_shards,
    "torchdata nodes, shard set": nodes_shards,
}
"""Ours first."""


def pipeline(reading: Reading) -> Any:
    """webdataset's own way: shards split by rank and worker and shuffled, samples shuffled in a buffer."""
    tars = sorted(str(path) for path in Path(reading.folder).glob("*.tar"))
    shards = webdataset.WebDataset(
        tars,
        shardshuffle=len(tars),
        detshuffle=True,
        seed=reading.seed,
        nodesplitter=partial(every_nth, rank=reading.rank, world=reading.world),
        empty_check=False,
    )
    mixed = shards.compose(webdataset.detshuffle(BUFFER, seed=reading.seed))
    return mixed.batched(reading.batch // reading.world, collation_fn=Cutter(reading).of_members)


def every_nth(shards: Iterator[Any], *, rank: int, world: int) -> Iterator[Any]:
    """webdataset.split_by_node, which finds rank and world in the environment."""
    return (shard for number, shard in enumerate(shards) if number % world == rank)


def random_order(reading: Reading, photos: ShardPhotos) -> Any:
    from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

    return StatefulDistributedSampler(photos, num_replicas=reading.world, rank=reading.rank, seed=reading.seed)


def resumed(loader: Any, state: Any) -> Epoch:
    """What a stateful loader hands out from a state on."""
    if state is not None:
        loader.load_state_dict(state)
    for crops in loader:
        yield crops, loader.state_dict
