"""One task on the workers: give out jobs, take in results, do again what died."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayError

from amn_dist.farms.farm import Leg, Report, Task, failed_shards
from amn_dist.farms.ray.faults import DEATHS, cause_of_death, traceback_of
from amn_dist.farms.ray.pool import Hand, Pool
from amn_dist.farms.ray.worker import Note
from amn_dist.farms.schedule import Job, Schedule

IN_FLIGHT = 2
"""Jobs a worker holds while there is plenty, so that it never waits for the driver."""

REPORT_S = 1.0
"""Seconds between two reports while chunks end and no shard does."""

START_S = 60.0
"""Seconds without any worker after which people are told."""


@dataclass(frozen=True, slots=True)
class Call:
    """A job under way. result: handle of what it makes."""

    job: Job
    pool: Pool
    hand: Hand
    result: Any


class Run:
    """Takes the jobs of a schedule to workers until it is over."""

    def __init__(
        self, name: str, task: Task, legs: Sequence[Leg], schedule: Schedule, pools: Mapping[str, Pool]
    ) -> None:
        self._name, self._task, self._legs = name, task, legs
        self._schedule, self._pools = schedule, pools
        self._work = [ray.put((task, legs))]
        self._calls: dict[Any, Call] = {}
        self._time = self._reported = time.monotonic()
        self._said = list(schedule.images)
        self._alone_s, self._told = 0.0, False

    def reports(self) -> Iterator[Report]:
        """Work, and say what happened. Raises StageError naming the failed shards after all others are done."""
        for pool in self._pools.values():
            pool.restart()
        try:
            while self._calls or not self._schedule.over:
                self._assign()
                yield from self._step()
        finally:
            # Interrupted: what is queued must not go on. A closed farm has no pools, and Ray must not be woken again.
            for pool in self._pools.values():
                for hand in [hand for hand in pool.hands if hand.calls]:
                    pool.dismiss(hand)
        if self._schedule.failures:
            raise failed_shards(self._task.name, self._schedule.failures)

    def _assign(self) -> None:
        for name, pool in self._pools.items():
            pool.fill()
            # A job in a queue cannot move to a worker that is free earlier: near the end nobody holds two.
            most = IN_FLIGHT if self._schedule.backlog(name) > len(pool.hands) else 1
            for depth in range(most):
                for hand in pool.hands:
                    if len(hand.calls) == depth and (job := self._schedule.next(name)) is not None:
                        self._call(pool, hand, job)

    def _call(self, pool: Pool, hand: Hand, job: Job) -> None:
        result, note = hand.actor.do.options(num_returns=2).remote(self._name, self._work, job)
        hand.calls.append(note)
        self._calls[note] = Call(job, pool, hand, result)

    def _step(self) -> Iterator[Report]:
        coming = {ready: pool for pool in self._pools.values() for ready in pool.coming}
        found, _ = ray.wait([*self._calls, *coming], num_returns=1, timeout=REPORT_S)
        self._pass_time()
        for ready in found:
            if ready in coming:
                coming[ready].arrive(ready)
            else:
                # A worker does its calls in turn: if any is over, its first is.
                yield from self._take_in(self._calls[ready].hand.calls[0])
        if self._alone_s > START_S and not self._told:
            self._told = True
            yield self._report(
                warning=f"no worker has started for {START_S:.0f} s; is the cluster full? (`ray status`)"
            )
        if time.monotonic() - self._reported > REPORT_S and self._schedule.images != self._said:
            yield self._report()

    def _take_in(self, ready: Any) -> Iterator[Report]:
        call = self._calls[ready]
        job, schedule = call.job, self._schedule
        try:
            note: Note | None = ray.get(ready)
        except DEATHS as error:
            yield from self._bury(call, cause_of_death(error))
            return
        except ObjectLostError:
            note = None
        except RayError as error:
            note = Note(fault=traceback_of(error))
        del self._calls[ready]
        call.hand.calls.popleft()
        call.pool.useful()
        if note is None:
            schedule.died(job, "its result was lost with its node", guilty=True)
        elif note.fault is not None:
            schedule.failed(job, note.fault)
        elif note.lost:
            schedule.lost(job, note.lost, "its maps were lost with their node again and again")
            yield self._report(warning=f"shard {job.shard}: {len(note.lost)} chunk(s) lost with their node, done again")
        elif schedule.ended(job, call.result, size=note.size):
            yield self._report(shard=job.shard, record=note.record)

    def _bury(self, dead: Call, why: str) -> Iterator[Report]:
        """Hand on the calls of a dead worker; only the first was being done."""
        for position, note in enumerate(dead.hand.calls):
            job = self._calls.pop(note).job
            self._schedule.died(job, f"its worker ({dead.hand.place}) {why}", guilty=position == 0)
        dead.hand.calls.clear()
        dead.pool.bury(dead.hand, why)
        yield self._report(
            warning=f"shard {dead.job.shard}: its worker ({dead.hand.place}) {why}; tried again elsewhere"
        )

    def _pass_time(self) -> None:
        now = time.monotonic()
        for pool in self._pools.values():
            pool.pass_time(now - self._time)
        self._alone_s = 0.0 if any(pool.hands for pool in self._pools.values()) else self._alone_s + now - self._time
        self._time = now

    def _report(self, *, shard: int | None = None, record: Any = None, warning: str | None = None) -> Report:
        self._reported, self._said = time.monotonic(), list(self._schedule.images)
        return Report(
            images={leg.name: count for leg, count in zip(self._legs, self._schedule.images, strict=True)},
            shard=shard,
            record=record,
            busy={name: pool.busy for name, pool in self._pools.items()},
            warning=warning,
        )
