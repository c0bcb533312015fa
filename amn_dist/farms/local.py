"""A farm of one: this process, one shard after the other. The oracle of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from amn_dist.errors import AmnError
from amn_dist.farms.farm import Task, failed_shards


class LocalFarm:
    """Runs shards here."""

    def run(self, task: Task, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        failures: dict[int, str] = {}
        work = task.open()
        for number in numbers:
            try:
                yield number, work(number)
            except AmnError as error:
                failures[number] = str(error)
        if failures:
            raise failed_shards(task.name, failures)

    def close(self) -> None:
        return None
