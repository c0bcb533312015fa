"""What a farm is: it runs one function over shard numbers, somewhere, and says which failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from amn_dist.errors import StageError


class Task(Protocol):
    """Work over shards. It is sent to every worker once and opened there once."""

    @property
    def name(self) -> str: ...

    def open(self) -> Callable[[int], Any]:
        """Load what all shards share; returns the function that does one shard and returns a small record."""
        ...


class Farm(Protocol):
    """Runs a task over shards; every shard is done exactly once or named in an error."""

    def run(self, task: Task, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Yield (shard number, record) as shards end, in any order. Raises StageError after the last one."""
        ...

    def close(self) -> None:
        """Stop every worker."""
        ...


def failed_shards(task: str, failures: dict[int, str]) -> StageError:
    """One error for all failed shards: their numbers, and why the first failed."""
    numbers = sorted(failures)
    listed = ", ".join(str(number) for number in numbers[:12]) + (", ..." if len(numbers) > 12 else "")
    first = failures[numbers[0]]
    return StageError(
        f"{task}: {len(numbers)} shard(s) failed ({listed}); shard {numbers[0]}: {first}; "
        "finished shards are kept, the same command goes on"
    )
