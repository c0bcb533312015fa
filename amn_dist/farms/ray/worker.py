"""What runs inside a worker process."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import ObjectLostError

from amn_dist.errors import AmnError
from amn_dist.farms.farm import Leg, Task
from amn_dist.farms.schedule import Job
from amn_dist.ops.devices import has_gpu

Work = tuple[Task, Sequence[Leg]]


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What the driver hears of a call; its result stays in the object store.

    size: bytes of a result that a later leg reads. record: of a finished shard. fault: an error that trying again would
    not mend. lost: positions of inputs that are gone. apart: one of a bundle failed, and each is to be done alone.
    """

    size: int = 0
    record: Any = None
    fault: str | None = None
    lost: tuple[int, ...] = ()
    apart: bool = False


class Worker:
    """An actor that lives as long as the farm: it opens a leg when it first meets it, then does its jobs."""

    def __init__(self, threads: int, *, device: bool) -> None:
        if not device:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else every CPU worker would hold a context on a network's GPU
        torch.set_num_threads(threads)
        self._name: str | None = None
        self._opened: dict[int, Any] = {}

    def ready(self) -> tuple[str, bool]:
        """Where this worker runs, for people: node address and process id; and whether it sees a GPU."""
        return f"{ray.util.get_node_ip_address()}, process {os.getpid()}", has_gpu()

    def do(self, name: str, work: Sequence[Any], job: Job) -> tuple[Any, JobOutcome]:
        """The job's result, and its outcome. work: a handle of the task and its legs, fetched once a task."""
        inputs, lost = fetch(job.inputs)
        if lost:
            return None, JobOutcome(lost=lost)
        try:
            self._meet(name, work)
            return self._do(job, inputs)
        except AmnError as error:
            return None, JobOutcome(fault=str(error))

    def do_bundle(self, name: str, work: Sequence[Any], jobs: Sequence[Job]) -> list[Any]:
        """Jobs of the first leg at once: their results, then their outcomes. A failure is looked for one by one."""
        try:
            self._meet(name, work)
            results = self._leg(0).bundle([job.chunk for job in jobs])
            done = [self._ended(job, result) for job, result in zip(jobs, results, strict=True)]
        except Exception:
            done = [(None, JobOutcome(apart=True)) for _ in jobs]
        return [*(result for result, _ in done), *(outcome for _, outcome in done)]

    def _meet(self, name: str, work: Sequence[Any]) -> None:
        """Fetch the task of that name, unless it is the one that is being done."""
        if self._name != name:
            self._opened.clear()
            self._work: Work = ray.get(work[0])
            self._name = name

    def _leg(self, number: int) -> Any:
        if number not in self._opened:
            self._opened[number] = self._work[1][number].open()
        return self._opened[number]

    def _do(self, job: Job, inputs: list[Any]) -> tuple[Any, JobOutcome]:
        if job.chunk is None:
            return None, JobOutcome(record=self._work[0].finish(job.shard, inputs))
        return self._ended(job, self._leg(job.leg)(job.chunk, inputs[0] if inputs else None))

    def _ended(self, job: Job, result: Any) -> tuple[Any, JobOutcome]:
        """What the driver hears of a leg's result; that of a whole shard is put together at once."""
        task, legs = self._work
        if job.finishes:
            return None, JobOutcome(record=task.finish(job.shard, [result]))
        return result, JobOutcome(size=size_of(result) if job.leg + 1 < len(legs) else 0)


def fetch(handles: Sequence[Any]) -> tuple[list[Any], tuple[int, ...]]:
    """The results behind handles, and the positions of those that died with their node."""
    results, lost = [], []
    for position, handle in enumerate(handles):
        try:
            results.append(ray.get(handle))
        except ObjectLostError:
            lost.append(position)
    return results, tuple(lost)


def size_of(result: Any) -> int:
    """Bytes of a result in the object store; its arrays are not copied to find out."""
    arrays: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(result, protocol=5, buffer_callback=arrays.append)
    return len(rest) + sum(array.raw().nbytes for array in arrays)
