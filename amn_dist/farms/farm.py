"""What a farm is: it takes the shards of a task through its legs, chunk by chunk, somewhere, and says which failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from amn_dist.errors import MESSAGE, StageError, printable
from amn_dist.interfaces import Needs


@dataclass(frozen=True, slots=True)
class Chunk:
    """The unit of work: the samples start <= position < stop of a shard."""

    shard: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class Leg(Protocol):
    """The part of a task that runs on workers of one kind. It is opened once a worker."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> Needs: ...

    def open(self) -> Callable[[Chunk, Any], Any]:
        """Load what all chunks share; returns what turns a chunk and the result of the leg before (or None) into this
        leg's result."""
        ...


@runtime_checkable
class Bundling(Protocol):
    """A leg, one that begins a task, that is better given several chunks at once."""

    @property
    def together(self) -> int:
        """Samples it is best given at a time, while there are; what it is opened to then has `bundle(chunks)`, whose
        results are those of each chunk alone."""
        ...


def samples_together(leg: Leg) -> int:
    """Samples a leg is best given at a time; 0 where that is a chunk."""
    return leg.together if isinstance(leg, Bundling) else 0


@runtime_checkable
class Feeding(Protocol):
    """A leg that reads for a network."""

    def fed_by(self, cores: int) -> Leg:
        """The leg where a GPU has so many cores beside it."""
        ...


def fed_by(leg: Leg, cores: int) -> Leg:
    """A leg for workers that have so many cores for each of their GPUs."""
    return leg.fed_by(cores) if isinstance(leg, Feeding) else leg


class Task(Protocol):
    """Work over shards: every chunk goes through all legs, the parts of a shard are put together once."""

    @property
    def name(self) -> str: ...

    def chunks(self, number: int) -> Sequence[Chunk]:
        """The chunks of a shard, in order; they depend on the configuration alone, never on the workers."""
        ...

    def legs(self, *, split: bool) -> Sequence[Leg]:
        """The legs, in order: one a kind of worker (split), or a single one for workers that do it all."""
        ...

    def finish(self, number: int, parts: Sequence[Any]) -> Any:
        """Put a shard together from what the last leg made of its chunks, in order; returns a small record.

        It may run twice after a death, and must leave the same then.
        """
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """What a farm says while it works.

    images: samples through each leg so far, by leg name. shard, record: a shard that has just been finished.
    busy: fraction of the workers' time that was work so far, by pool. warning: a mishap that has been mended.
    """

    images: Mapping[str, int]
    shard: int | None = None
    record: Any = None
    busy: Mapping[str, float] = field(default_factory=dict)
    warning: str | None = None

    def metrics(self, *, before: int, total: int, seconds: float) -> dict[str, Any]:
        """Figures of a stage that had `before` of its `total` samples when the farm began, `seconds` ago."""
        rates = {name: count / max(seconds, 1e-9) for name, count in self.images.items()}
        done, rate = [(before + self.images[name], rates[name]) for name in self.images][-1]
        figures: dict[str, Any] = {"step": done, "steps": total, "images_per_s": round(rate, 3)}
        if rate:
            figures["seconds_left"] = round((total - done) / rate, 1)
        if len(rates) > 1:
            figures["legs_per_s"] = {name: round(value, 3) for name, value in rates.items()}
        if self.busy:
            figures["busy"] = {name: round(value, 3) for name, value in self.busy.items()}
        if self.warning is not None:
            figures["warning"] = self.warning
        return figures


class Farm(Protocol):
    """Runs a task over shards; every shard is finished exactly once or named in an error."""

    @property
    def accelerated(self) -> bool:
        """Whether the workers that run networks compute on a GPU."""
        ...

    def run(self, task: Task, numbers: Sequence[int]) -> Iterator[Report]:
        """Yield reports, one for each finished shard among them, in any order. Raises StageError after the last."""
        ...

    def close(self) -> None:
        """Stop every worker."""
        ...


def failed_shards(task: str, failures: Mapping[int, str]) -> StageError:
    """One error for all failed shards: their numbers, and why the first failed."""
    numbers = sorted(failures)
    listed = ", ".join(str(number) for number in numbers[:12]) + (", ..." if len(numbers) > 12 else "")
    first = printable(failures[numbers[0]], MESSAGE // 2)
    return StageError(
        f"{task}: {len(numbers)} shard(s) failed ({listed}); shard {numbers[0]}: {first}; "
        "finished shards are kept, the same command goes on"
    )
