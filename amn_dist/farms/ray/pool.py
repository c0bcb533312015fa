"""Workers of one kind: who is there, who is coming, who is busy."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from amn_dist.errors import StageError
from amn_dist.farms.ray.faults import cause_of_death
from amn_dist.farms.ray.worker import Worker


@dataclass(frozen=True, slots=True)
class WorkerKind:
    """What a worker of a pool is given. gpus: share of a device. device: whether it sees one at all."""

    name: str
    threads: int
    gpus: float
    device: bool = True


@dataclass(eq=False, slots=True)
class PoolWorker:
    """A worker that has arrived. location: node address and process id, for people. accelerated: whether it sees a GPU.
    calls: outcomes it still owes, in the order it works."""

    actor: Any
    location: str
    accelerated: bool
    calls: deque[Any] = field(default_factory=deque)


class Pool:
    """Keeps `size` workers of a kind. One that dies is replaced when and where the cluster has room."""

    def __init__(self, kind: WorkerKind, size: int) -> None:
        self.kind, self.size = kind, size
        self.workers: list[PoolWorker] = []
        self.starting: dict[Any, Any] = {}
        self._idle_deaths = 0
        self._worked_s = self._present_s = 0.0
        self.fill()

    @property
    def busy(self) -> float:
        """Fraction of the workers' time since `restart` that was work."""
        return self._worked_s / self._present_s if self._present_s else 0.0

    def restart(self) -> None:
        """Begin to count busy time anew."""
        self._worked_s = self._present_s = 0.0

    def pass_time(self, seconds: float) -> None:
        """Count the seconds since the last call, in which workers were as they are now."""
        self._worked_s += seconds * sum(bool(worker.calls) for worker in self.workers)
        self._present_s += seconds * len(self.workers)

    def fill(self) -> None:
        """Hire until the pool is whole; a worker the cluster has no room for comes when there is some."""
        while len(self.workers) + len(self.starting) < self.size:
            hired = ray.remote(num_cpus=self.kind.threads, num_gpus=self.kind.gpus, max_restarts=0)(Worker)
            actor: Any = hired.remote(self.kind.threads, device=self.kind.device)
            self.starting[actor.ready.remote()] = actor

    def take_in(self, ready: Any) -> None:
        """Take in a worker whose first answer is there. Raises StageError when none can be started."""
        actor = self.starting.pop(ready)
        try:
            self.workers.append(PoolWorker(actor, *ray.get(ready)))
        except RayError as error:
            self._count_idle_death(cause_of_death(error))

    def first_worker(self, timeout_s: float) -> PoolWorker | None:
        """A worker that has arrived, waited for; None when none does within timeout_s."""
        end = time.monotonic() + timeout_s
        while not self.workers and (left := end - time.monotonic()) > 0:
            self.fill()
            for ready in ray.wait(list(self.starting), num_returns=1, timeout=left)[0]:
                self.take_in(ready)
        return self.workers[0] if self.workers else None

    def job_done(self) -> None:
        """A worker has ended a job: this pool can work."""
        self._idle_deaths = 0

    def remove_dead(self, worker: PoolWorker, why: str) -> None:
        """Give up a dead worker. Raises StageError when they die one after the other without a job done."""
        self.kill(worker)
        self._count_idle_death(why)

    def kill(self, worker: PoolWorker) -> None:
        """Give up a worker, dead or not, with what it holds."""
        self.workers.remove(worker)
        ray.kill(worker.actor)

    def _count_idle_death(self, why: str) -> None:
        self._idle_deaths += 1
        if self._idle_deaths > 10 + 2 * self.size:
            # Ray cancels the workers of a driver with a token where the nodes have none, and does not say why.
            hint = "; if this cluster has no token, set RAY_AUTH_MODE=disabled" if "never ran" in why else ""
            raise StageError(f"farm: the last {self._idle_deaths} workers did no job; the last of them {why}{hint}")
