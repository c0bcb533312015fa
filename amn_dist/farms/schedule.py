"""Which job comes next: chunks through legs, bounded between them, shards put together when all parts are there.

Pure bookkeeping, without workers: results are opaque handles here. The state is as large as the open shards, however
many there are in all.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from amn_dist.farms.farm import Chunk, Task

Handle = Any
"""A result that lies somewhere else."""


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a worker.

    leg: the leg it takes its chunk through; after the last leg, where chunk is None, the shard is put together.
    inputs: handles of the results it reads. finishes: the chunk is the whole shard, which is put together at once.
    apart: it was in a bundle that failed, and is done alone.
    """

    shard: int
    leg: int
    chunk: Chunk | None
    inputs: tuple[Handle, ...] = ()
    finishes: bool = False
    apart: bool = False


@dataclass(slots=True)
class ShardProgress:
    """An open shard: its chunks, the results of the last leg by chunk, how often a chunk was begun in vain."""

    chunks: Sequence[Chunk]
    parts: dict[Chunk, Handle] = field(default_factory=dict)
    tries: Counter[Chunk | None] = field(default_factory=Counter)


@dataclass(slots=True)
class Room:
    """How much may lie between the first and the last leg: chunks, and bytes of their results."""

    chunks: int
    bytes: int
    taken: dict[Chunk, int] = field(default_factory=dict)
    largest: int = 0

    def free(self) -> bool:
        """Whether another chunk fits; a single one always does."""
        held = sum(self.taken.values()) + self.largest
        return not self.taken or (len(self.taken) < self.chunks and held <= self.bytes)

    def take(self, chunk: Chunk, size: int | None = None) -> None:
        """Reserve room for a chunk: as much as the largest so far needed, until its size is known."""
        self.largest = max(self.largest, size or 0)
        self.taken[chunk] = self.largest if size is None else size


class Schedule:
    """Hands out the jobs of a task and takes in how they ended; `failures` says why shards failed, by number.

    pools: the pool of workers of each leg, then the one that puts shards together.
    """

    def __init__(self, task: Task, numbers: Sequence[int], pools: Sequence[str], *, room: Room, retries: int) -> None:
        self.failures: dict[int, str] = {}
        self.images = [0 for _ in pools[:-1]]
        self._task, self._pools, self._room, self._retries = task, tuple(pools), room, retries
        self._numbers, self._shards_left = iter(numbers), len(numbers)
        self._waiting: tuple[deque[Job], ...] = tuple(deque() for _ in pools)
        self._open: dict[int, ShardProgress] = {}

    @property
    def over(self) -> bool:
        """Whether every shard is finished or failed."""
        return not self._open and not self._shards_left

    def backlog(self, pool: str) -> int:
        """About how many jobs wait for a pool, at least."""
        waiting = sum(len(queue) for queue, of in zip(self._waiting, self._pools, strict=True) if of == pool)
        return waiting + (self._shards_left if self._pools[0] == pool else 0)

    def next(self, pool: str) -> Job | None:
        """The next job of a pool, or None for now: what is furthest on comes first, shards in order."""
        for leg in reversed(range(len(self._pools))):
            if self._pools[leg] == pool and (job := self._take(leg)) is not None:
                return job
        return None

    def bundle(self, pool: str, *, samples: int) -> list[Job]:
        """The next jobs of a pool that one worker may do at once: `samples` of the first leg at most, one job at least
        if there is any. Whatever a job of later legs, or one that is done apart, has no company."""
        first = self.next(pool)
        if first is None:
            return []
        jobs, held = [first], len(first.chunk or ())
        while first.leg == 0 and first.chunk is not None and not jobs[-1].apart:
            following = self._waiting[0][0] if self._waiting[0] else None
            if following is not None and (following.apart or held + len(following.chunk or ()) > samples):
                break
            if held >= samples or (job := self._take(0)) is None:
                break
            jobs.append(job)
            held += len(job.chunk or ())
        return jobs

    def apart(self, job: Job) -> None:
        """A job failed or died in a bundle, maybe for another's sake: it is done again, alone, and nobody is blamed."""
        self.died(replace(job, apart=True), "", guilty=False)

    def ended(self, job: Job, handle: Handle, *, size: int = 0) -> bool:
        """A job has its result, `size` bytes large. Returns whether its shard is finished now."""
        if job.shard not in self._open:
            self._release(job.chunk)
            return False
        if job.chunk is None:
            del self._open[job.shard]
            return True
        self.images[job.leg] += len(job.chunk)
        if job.finishes:
            self._release(job.chunk)
            del self._open[job.shard]
            return True
        self._pass_on(job.shard, job.leg + 1, job.chunk, handle, size)
        return False

    def died(self, job: Job, why: str, *, guilty: bool) -> None:
        """A worker died over a job; it is done again by another, `retries` times if it was the one being done."""
        again = self._try_again(job.shard, job.chunk, why, guilty=guilty)
        if again:
            self._waiting[job.leg].appendleft(job)
        if not again or job.leg == 0:
            self._release(job.chunk)

    def lost(self, job: Job, positions: Sequence[int], why: str) -> None:
        """Inputs of a job are gone with a worker or a node: their chunks begin again, and no others."""
        if job.shard not in self._open:
            return self._release(job.chunk)
        progress = self._open[job.shard]
        for chunk in [progress.chunks[position] for position in positions] if job.chunk is None else [job.chunk]:
            progress.parts.pop(chunk, None)
            self._release(chunk)
            for leg in range(len(self.images) if job.chunk is None else job.leg):
                self.images[leg] -= len(chunk)
            if self._try_again(job.shard, chunk, why, guilty=True):
                self._waiting[0].appendleft(self._job(job.shard, 0, chunk))

    def failed(self, job: Job, why: str) -> None:
        """A job ended in an error that trying again would not mend: its shard fails, the others go on."""
        self._release(job.chunk)
        if self._open.pop(job.shard, None) is not None:
            self.failures[job.shard] = why

    def _take(self, leg: int) -> Job | None:
        if leg == 0 and len(self._pools) > 2 and not self._room.free():
            return None
        while self._waiting[leg] or (leg == 0 and self._open_next()):
            job = self._waiting[leg].popleft()
            if job.shard in self._open:
                if leg == 0 and len(self._pools) > 2 and job.chunk is not None:
                    self._room.take(job.chunk)
                return job
            self._release(job.chunk)
        return None

    def _open_next(self) -> bool:
        if not self._shards_left:
            return False
        number = next(self._numbers)
        self._shards_left -= 1
        chunks = self._task.chunks(number)
        assert chunks, f"shard {number} holds no sample"
        self._open[number] = ShardProgress(chunks)
        self._waiting[0].extend(self._job(number, 0, chunk) for chunk in chunks)
        return True

    def _pass_on(self, shard: int, leg: int, chunk: Chunk, handle: Handle, size: int) -> None:
        if leg < len(self.images):
            self._room.take(chunk, size)
            self._waiting[leg].append(self._job(shard, leg, chunk, handle))
            return
        self._release(chunk)
        progress = self._open[shard]
        progress.parts[chunk] = handle
        if len(progress.parts) == len(progress.chunks):
            inputs = tuple(progress.parts[chunk] for chunk in progress.chunks)
            self._waiting[leg].append(Job(shard, leg, None, inputs))

    def _job(self, shard: int, leg: int, chunk: Chunk, *inputs: Handle) -> Job:
        alone = len(self._open[shard].chunks) == 1
        return Job(shard, leg, chunk, inputs, finishes=alone and leg == len(self.images) - 1)

    def _try_again(self, shard: int, chunk: Chunk | None, why: str, *, guilty: bool) -> bool:
        progress = self._open.get(shard)
        if progress is None:
            return False
        progress.tries[chunk] += guilty
        if progress.tries[chunk] > self._retries:
            self.failures[shard] = f"{why} ({progress.tries[chunk]} times)"
            del self._open[shard]
        return shard in self._open

    def _release(self, chunk: Chunk | None) -> None:
        if chunk is not None:
            self._room.taken.pop(chunk, None)
