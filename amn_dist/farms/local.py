"""A farm of one: this process, one shard after the other. The oracle of the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from amn_dist.errors import AmnError
from amn_dist.farms.farm import Chunk, Report, Task, failed_shards, fed_by
from amn_dist.ops.devices import has_gpu


class LocalFarm:
    """Runs shards here."""

    @property
    def accelerated(self) -> bool:
        return has_gpu()

    def run(self, task: Task, numbers: Sequence[int]) -> Iterator[Report]:
        failures: dict[int, str] = {}
        cores = len(os.sched_getaffinity(0))
        legs = [fed_by(leg, cores) for leg in task.legs(split=False)]
        works = [leg.open() for leg in legs]
        images = 0
        for number in numbers:
            chunks = task.chunks(number)
            try:
                record = task.finish(number, [_through(works, chunk) for chunk in chunks])
            except AmnError as error:
                failures[number] = str(error)
                continue
            images += sum(len(chunk) for chunk in chunks)
            yield Report({leg.name: images for leg in legs}, number, record)
        if failures:
            raise failed_shards(task.name, failures)

    def close(self) -> None:
        return None


def _through(works: Sequence[Callable[[Chunk, Any], Any]], chunk: Chunk) -> Any:
    passed = None
    for work in works:
        passed = work(chunk, passed)
    return passed
