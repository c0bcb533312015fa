"""One task on the workers: give out jobs, take in results, do again what died."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayError

from amn_dist.farms.farm import Leg, Report, Task, failed_shards, samples_together
from amn_dist.farms.ray.faults import DEATHS, cause_of_death, traceback_of
from amn_dist.farms.ray.pool import Pool, PoolWorker
from amn_dist.farms.ray.worker import JobOutcome
from amn_dist.farms.schedule import Job, Schedule

IN_FLIGHT = 2
"""Jobs a worker holds while there is plenty, so that it never waits for the driver."""

REPORT_S = 1.0
"""Seconds between two reports while chunks end and no shard does."""

START_S = 60.0
"""Seconds without any worker after which people are told."""


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A job under way. result: handle of what it makes. bundle: outcomes of all that its worker does at once."""

    job: Job
    pool: Pool
    worker: PoolWorker
    result: Any
    bundle: tuple[Any, ...]


class TaskDriver:
    """Takes the jobs of a schedule to workers until it is over."""

    def __init__(
        self, name: str, task: Task, legs: Sequence[Leg], schedule: Schedule, pools: Mapping[str, Pool]
    ) -> None:
        self._name, self._task, self._legs = name, task, legs
        self._schedule, self._pools = schedule, pools
        self._work = [ray.put((task, legs))]
        self._calls: dict[Any, PendingCall] = {}
        self._time = self._reported = time.monotonic()
        self._reported_images = list(schedule.images)
        self._alone_s, self._warned = 0.0, False
        self._chunk = 1
        """Samples of the largest chunk so far."""

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
                for worker in [worker for worker in pool.workers if worker.calls]:
                    pool.kill(worker)
        if self._schedule.failures:
            raise failed_shards(self._task.name, self._schedule.failures)

    def _assign(self) -> None:
        for name, pool in self._pools.items():
            pool.fill()
            # A job in a queue cannot move to a worker that is free earlier: near the end nobody holds two.
            backlog = self._schedule.backlog(name)
            most = IN_FLIGHT if backlog > len(pool.workers) else 1
            for depth in range(most):
                for worker in pool.workers:
                    if self._held(worker) == depth:
                        self._give(pool, worker, self._schedule.bundle(name, samples=self._samples(backlog, pool)))

    def _held(self, worker: PoolWorker) -> int:
        """Bundles that a worker has not answered for."""
        return len({self._calls[outcome].bundle for outcome in worker.calls})

    def _samples(self, backlog: int, pool: Pool) -> int:
        """Samples a worker is given at once: as many as suit the first leg, near the end its share of the rest."""
        share = -(-backlog // max(len(pool.workers), 1)) * self._chunk
        return min(samples_together(self._legs[0]), share)

    def _give(self, pool: Pool, worker: PoolWorker, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        if len(jobs) == 1:
            returned = worker.actor.do.options(num_returns=2).remote(self._name, self._work, jobs[0])
        else:
            bundled = worker.actor.do_bundle.options(num_returns=2 * len(jobs))
            returned = bundled.remote(self._name, self._work, jobs)
        results, outcomes = returned[: len(jobs)], returned[len(jobs) :]
        for job, result, outcome in zip(jobs, results, outcomes, strict=True):
            self._chunk = max(self._chunk, len(job.chunk or ()))
            worker.calls.append(outcome)
            self._calls[outcome] = PendingCall(job, pool, worker, result, tuple(outcomes))

    def _step(self) -> Iterator[Report]:
        starting = {ready: pool for pool in self._pools.values() for ready in pool.starting}
        answered, _ = ray.wait([*self._calls, *starting], num_returns=1, timeout=REPORT_S)
        self._pass_time()
        for ready in answered:
            if ready in starting:
                starting[ready].take_in(ready)
            else:
                # A worker does its calls in turn: if any is over, its first is.
                yield from self._take_in(self._calls[ready].worker.calls[0])
        if self._alone_s > START_S and not self._warned:
            self._warned = True
            yield self._report(
                warning=f"no worker has started for {START_S:.0f} s; is the cluster full? (`ray status`)"
            )
        if time.monotonic() - self._reported > REPORT_S and self._schedule.images != self._reported_images:
            yield self._report()

    def _take_in(self, ready: Any) -> Iterator[Report]:
        call = self._calls[ready]
        job, schedule = call.job, self._schedule
        try:
            outcome: JobOutcome | None = ray.get(ready)
        except DEATHS as error:
            yield from self._hand_on_calls(call, cause_of_death(error))
            return
        except ObjectLostError:
            outcome = None
        except RayError as error:
            outcome = JobOutcome(fault=traceback_of(error))
        del self._calls[ready]
        call.worker.calls.popleft()
        call.pool.job_done()
        if outcome is None:
            schedule.died(job, "its result was lost with its node", guilty=True)
        elif outcome.apart:
            schedule.apart(job)
        elif outcome.fault is not None:
            schedule.failed(job, outcome.fault)
        elif outcome.lost:
            schedule.lost(job, outcome.lost, "its maps were lost with their node again and again")
            chunks = len(outcome.lost)
            yield self._report(warning=f"shard {job.shard}: {chunks} chunk(s) lost with their node, done again")
        elif schedule.ended(job, call.result, size=outcome.size):
            yield self._report(shard=job.shard, record=outcome.record)

    def _hand_on_calls(self, dead: PendingCall, why: str) -> Iterator[Report]:
        """Hand on the calls of a dead worker; only the first was being done, or those of one bundle with it."""
        first = self._calls[dead.worker.calls[0]].bundle
        for outcome in dead.worker.calls:
            job = self._calls.pop(outcome).job
            if len(first) > 1 and outcome in first:
                self._schedule.apart(job)
            else:
                self._schedule.died(job, f"its worker ({dead.worker.location}) {why}", guilty=outcome in first)
        dead.worker.calls.clear()
        dead.pool.remove_dead(dead.worker, why)
        yield self._report(
            warning=f"shard {dead.job.shard}: its worker ({dead.worker.location}) {why}; tried again elsewhere"
        )

    def _pass_time(self) -> None:
        now = time.monotonic()
        for pool in self._pools.values():
            pool.pass_time(now - self._time)
        self._alone_s = 0.0 if any(pool.workers for pool in self._pools.values()) else self._alone_s + now - self._time
        self._time = now

    def _report(self, *, shard: int | None = None, record: Any = None, warning: str | None = None) -> Report:
        self._reported, self._reported_images = time.monotonic(), list(self._schedule.images)
        return Report(
            images={leg.name: count for leg, count in zip(self._legs, self._schedule.images, strict=True)},
            shard=shard,
            record=record,
            busy={name: pool.busy for name, pool in self._pools.items()},
            warning=warning,
        )
