"""Packing as work for a farm: a shard is a chunk; its sources travel to the worker that packs it, pickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from amn_dist.config import FarmSection
from amn_dist.errors import ShardError
from amn_dist.farms.farm import Chunk, Farm, Report, Task
from amn_dist.interfaces import Needs
from amn_dist.storage.paths import AnyPath
from data_shards.shard import Packed, SampleRules, pack_shard
from data_shards.source import PackSource


@dataclass(frozen=True)
class PackLeg:
    """What a worker does. sources: of every shard. mark: a file in `out` that every worker must see."""

    out: AnyPath
    sources: tuple[bytes, ...]
    rules: SampleRules
    skip_bad: bool
    mark: str
    name: str = "pack"
    needs: Needs = "cpu"

    def open(self) -> Callable[[Chunk, Any], Packed]:
        if not (self.out / self.mark).is_file():
            raise ShardError(f"{self.out}: is not the folder the packing began with; use one that all machines share")
        return lambda chunk, passed: pack_shard(
            pickle.loads(self.sources[chunk.shard]), chunk.shard, self.out, rules=self.rules, skip_bad=self.skip_bad
        )


@dataclass(frozen=True)
class PackTask:
    """Shards to pack; the record of each is how it ended."""

    leg: PackLeg
    sizes: tuple[int, ...]
    name: str = "pack"

    def chunks(self, number: int) -> tuple[Chunk, ...]:
        return (Chunk(number, 0, self.sizes[number]),)

    def legs(self, *, split: bool) -> tuple[PackLeg, ...]:
        return (self.leg,)

    def finish(self, number: int, parts: Sequence[Packed]) -> Packed:
        return parts[0]


def pack_task(
    shards: Sequence[Sequence[PackSource]], out: AnyPath, *, rules: SampleRules, skip_bad: bool, mark: str
) -> PackTask:
    """The task of packing some shards into a folder."""
    sources = tuple(pickle.dumps(shard, protocol=pickle.HIGHEST_PROTOCOL) for shard in shards)
    return PackTask(PackLeg(out.absolute(), sources, rules, skip_bad, mark), tuple(map(len, shards)))


class RayOnDemand:
    """Ray workers on cores alone, started when there is something to pack."""

    def __init__(self, workers: int, address: str | None) -> None:
        self._section, self._address = FarmSection(workers=workers, pools="one"), address
        self._farm: Farm | None = None

    @property
    def accelerated(self) -> bool:
        return False

    def run(self, task: Task, numbers: Sequence[int]) -> Iterator[Report]:
        if self._farm is None:
            from amn_dist.farms.ray.farm import RayFarm

            self._farm = RayFarm(self._section, address=self._address, devices=False)
        return self._farm.run(task, numbers)

    def close(self) -> None:
        if self._farm is not None:
            self._farm.close()


@contextmanager
def packing_farm(workers: int | None, address: str | None) -> Iterator[Farm | None]:
    """The farm that was asked for: `workers` processes (0: one a core) here, or in the Ray cluster at an address; None
    without either."""
    if workers is None and address is None:
        yield None
        return
    with closing(RayOnDemand(workers or 0, address)) as farm:
        yield farm
