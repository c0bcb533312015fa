"""The Ray farm: one actor a worker, over one machine or a cluster; what dies is started again elsewhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError

from amn_dist.config import Farm as FarmSection
from amn_dist.errors import AmnError, StageError
from amn_dist.farms.farm import Task, failed_shards
from amn_dist.farms.ray_nodes import bring_token

IN_FLIGHT = 2
"""Shards queued on a worker, so that it never waits for the driver."""


class Worker:
    """An actor that lives as long as the farm: it opens a task when it first meets it, then does its shards."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._name: str | None = None
        self._work: Callable[[int], Any] | None = None

    def shard(self, name: str, task: Task, number: int) -> tuple[Any, str | None]:
        """The shard's record, or the message of an error that trying again would not mend."""
        try:
            if self._work is None or self._name != name:
                self._work = None
                self._work, self._name = task.open(), name
            return self._work(number), None
        except AmnError as error:
            return None, str(error)


class RayFarm:
    """Runs shards on the workers of a Ray cluster, its own (loopback only) unless an address is given."""

    def __init__(self, section: FarmSection, *, address: str | None = None) -> None:
        self._section = section
        self._tasks = 0
        if not ray.is_initialized():
            connect(section, address)
        actor = ray.remote(num_cpus=section.threads, max_restarts=-1, max_task_retries=section.retries)(Worker)
        self._workers = [actor.remote(section.threads) for _ in range(self._size())]

    def run(self, task: Task, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        self._tasks += 1
        name, shared = f"{task.name}/{self._tasks}", ray.put(task)
        waiting = list(reversed(numbers))
        running: dict[Any, tuple[int, Any]] = {}
        failures: dict[int, str] = {}

        def start(worker: Any) -> None:
            if waiting:
                number = waiting.pop()
                running[worker.shard.remote(name, shared, number)] = (number, worker)

        for worker in self._workers * IN_FLIGHT:
            start(worker)
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            number, worker = running.pop(done)
            record, fault = fetch(done)
            start(worker)
            if fault is None:
                yield number, record
            else:
                failures[number] = fault
        if failures:
            raise failed_shards(task.name, failures)

    def _size(self) -> int:
        cores = int(ray.cluster_resources().get("CPU", 1))
        room = max(cores // self._section.threads, 1)
        return min(self._section.workers or room, room)

    def close(self) -> None:
        ray.shutdown()


def connect(section: FarmSection, address: str | None) -> None:
    """Join a running cluster, or start one for this process that listens on loopback only."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address is not None:
            bring_token()
            ray.init(address=address, **quiet)
            return
        cores = max(len(os.sched_getaffinity(0)), section.workers * section.threads)
        ray.init(address="local", num_cpus=cores, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    except (ConnectionError, RuntimeError, OSError) as error:
        where = f"Ray at {address}" if address else "a Ray cluster on this machine"
        raise StageError(f"{where}: cannot be reached or started ({error}); see `amn doctor`") from error


def fetch(done: Any) -> tuple[Any, str | None]:
    """The record of an ended shard, or why there is none."""
    try:
        return ray.get(done)
    except RayTaskError as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        return None, f"{lines[-1].strip()} (first traceback: {' | '.join(line.strip() for line in lines[-7:-1])})"
    except RayActorError as error:
        return None, f"its worker died again and again ({' '.join(str(error).split())[:300]})"
