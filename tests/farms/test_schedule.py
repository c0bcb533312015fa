"""The order of work, without workers: whatever dies, each shard is finished once from all its parts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amn_dist.farms.farm import Chunk, Leg
from amn_dist.farms.schedule import Job, Room, Schedule

SIZE = 100
"""Bytes of every result between two legs."""


@dataclass(frozen=True)
class Sizes:
    """A task of which only the chunks matter."""

    sizes: tuple[int, ...]
    chunk: int
    name: str = "sizes"

    def chunks(self, number: int) -> Sequence[Chunk]:
        size = self.sizes[number]
        return [Chunk(number, start, min(start + self.chunk, size)) for start in range(0, size, self.chunk)]

    def legs(self, *, split: bool) -> Sequence[Leg]:
        return ()

    def finish(self, number: int, parts: Sequence[Any]) -> None:
        return None


@dataclass
class Play:
    """Plays workers of two pools: jobs end in any order, die, or find their inputs gone, at random."""

    schedule: Schedule
    dice: random.Random
    trouble: float
    slots: int = 3

    def __post_init__(self) -> None:
        self.running: list[Job] = []
        self.finished: dict[int, tuple[Any, ...]] = {}
        self.between = 0

    def to_the_end(self) -> None:
        while not self.schedule.over or self.running:
            for pool in ("network", "cpu"):
                while sum(self.pool_of(job) == pool for job in self.running) < self.slots:
                    job = self.schedule.next(pool)
                    if job is None:
                        break
                    self.running.append(job)
            assert self.running, "nothing runs and nothing is over"
            self.end(self.running.pop(self.dice.randrange(len(self.running))))

    def pool_of(self, job: Job) -> str:
        return "network" if job.leg == 0 else "cpu"

    def end(self, job: Job) -> None:
        trouble = self.dice.random() < self.trouble
        if trouble and job.inputs and self.dice.random() < 0.5:
            positions = sorted(self.dice.sample(range(len(job.inputs)), self.dice.randint(1, len(job.inputs))))
            return self.schedule.lost(job, positions, "lost")
        if trouble:
            return self.schedule.died(job, "died", guilty=self.dice.random() < 0.5)
        handle = None if job.chunk is None else (job.chunk, job.leg)
        if self.schedule.ended(job, handle, size=SIZE):
            assert job.shard not in self.finished
            self.finished[job.shard] = job.inputs if job.chunk is None else (handle,)
        return None


@given(
    sizes=st.lists(st.integers(1, 40), min_size=0, max_size=12),
    chunk=st.integers(1, 9),
    room=st.integers(1, 6),
    trouble=st.sampled_from([0.0, 0.1, 0.4]),
    seed=st.integers(0, 2**16),
)
def test_every_shard_is_finished_once_from_all_its_chunks_in_order(
    sizes: list[int], chunk: int, room: int, trouble: float, seed: int
) -> None:
    task, space = Sizes(tuple(sizes), chunk), Room(room, 10**9)
    schedule = Schedule(task, range(len(sizes)), ["network", "cpu", "cpu"], room=space, retries=10**6)
    play = Play(schedule, random.Random(seed), trouble)
    play.to_the_end()
    assert schedule.failures == {}
    assert play.finished == {n: tuple((part, 1) for part in task.chunks(n)) for n in range(len(sizes))}
    assert schedule.images == [sum(sizes)] * 2
    assert not space.taken


@pytest.mark.parametrize(("chunks", "size", "most"), [(4, 10**9, 4), (10**9, 3 * SIZE, 3), (1, 1, 1)])
def test_networks_pause_while_maps_wait_for_the_cpu(chunks: int, size: int, most: int) -> None:
    room = Room(chunks, size)
    schedule = Schedule(Sizes((100,), 5), [0], ["network", "cpu", "cpu"], room=room, retries=0)
    for _ in range(most):
        job = schedule.next("network")
        assert job is not None
        schedule.ended(job, "maps", size=SIZE)
    assert schedule.next("network") is None and len(room.taken) == most
    waiting = schedule.next("cpu")
    assert waiting is not None and schedule.next("network") is None
    schedule.ended(waiting, "rows")
    assert schedule.next("network") is not None


def test_only_as_many_shards_are_open_as_are_worked_on() -> None:
    asked: list[int] = []

    @dataclass(frozen=True)
    class Watched(Sizes):
        def chunks(self, number: int) -> Sequence[Chunk]:
            asked.append(number)
            return super().chunks(number)

    schedule = Schedule(Watched((4,) * 10**6, 2), range(10**6), ["cpu", "cpu"], room=Room(1, 1), retries=0)
    for _ in range(6):
        schedule.next("cpu")
    assert asked == [0, 1, 2]


def test_a_chunk_that_kills_its_workers_fails_its_shard_alone() -> None:
    schedule = Schedule(Sizes((4, 4), 2), range(2), ["cpu", "cpu"], room=Room(9, 9), retries=2)
    finished = []
    while not schedule.over:
        job = schedule.next("cpu")
        assert job is not None
        if job.chunk == Chunk(0, 2, 4):
            schedule.died(job, "was killed", guilty=True)
        elif schedule.ended(job, "rows"):
            finished.append(job.shard)
    assert schedule.failures == {0: "was killed (3 times)"} and finished == [1]


def test_who_waited_in_the_queue_of_a_dying_worker_is_not_blamed() -> None:
    schedule = Schedule(Sizes((2,), 2), [0], ["cpu", "cpu"], room=Room(9, 9), retries=0)
    for _ in range(20):
        job = schedule.next("cpu")
        assert job is not None
        schedule.died(job, "died", guilty=False)
    job = schedule.next("cpu")
    assert job is not None and job.finishes and schedule.ended(job, None)
    assert schedule.over and not schedule.failures


def test_a_bundle_is_jobs_of_the_first_leg() -> None:
    schedule = Schedule(Sizes((7, 4, 9), 3), range(3), ["network", "cpu", "cpu"], room=Room(9, 10**9), retries=0)
    (alone,) = schedule.bundle("network", samples=0)
    assert alone.chunk == Chunk(0, 0, 3)
    jobs = schedule.bundle("network", samples=8)
    assert [job.chunk for job in jobs] == [Chunk(0, 3, 6), Chunk(0, 6, 7), Chunk(1, 0, 3), Chunk(1, 3, 4)]
    assert [job.chunk for job in schedule.bundle("network", samples=100)] == list(Sizes((9,) * 3, 3).chunks(2))
    assert schedule.bundle("network", samples=8) == [] and schedule.bundle("cpu", samples=8) == []
    for job in jobs[:2]:
        schedule.ended(job, "maps", size=SIZE)
    assert [job.chunk for job in schedule.bundle("cpu", samples=100)] == [Chunk(0, 3, 6)]


def test_what_failed_in_a_bundle_is_done_alone_and_not_blamed() -> None:
    schedule = Schedule(Sizes((8,), 2), [0], ["cpu", "cpu"], room=Room(9, 9), retries=0)
    for _ in range(3):
        jobs = schedule.bundle("cpu", samples=4)
        for job in reversed(jobs):
            schedule.apart(job)
    bundles = [schedule.bundle("cpu", samples=100) for _ in range(3)]
    assert [[job.chunk for job in jobs] for jobs in bundles] == [
        [Chunk(0, 0, 2)],
        [Chunk(0, 2, 4)],
        [Chunk(0, 4, 6), Chunk(0, 6, 8)],
    ]
    assert [job.apart for jobs in bundles for job in jobs] == [True, True, False, False] and not schedule.failures


def test_a_failed_shard_gives_its_room_back() -> None:
    room = Room(2, 10**9)
    schedule = Schedule(Sizes((8, 8), 2), range(2), ["network", "cpu", "cpu"], room=room, retries=0)
    first, second = schedule.next("network"), schedule.next("network")
    assert first is not None and second is not None and schedule.next("network") is None
    schedule.ended(second, "maps", size=SIZE)
    schedule.failed(first, "bad")
    assert schedule.next("cpu") is None
    following = schedule.next("network")
    assert following is not None and following.shard == 1 and len(room.taken) == 1
