"""The Ray farm: pools of workers over one machine or a cluster, and how it is reached."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import ray

from amn_dist.config import FarmSection
from amn_dist.errors import ConfigError, StageError, printable
from amn_dist.farms.capacity import cores_beside
from amn_dist.farms.farm import Report, Task, fed_by, samples_together
from amn_dist.farms.ray.driver import IN_FLIGHT, START_S, TaskDriver
from amn_dist.farms.ray.nodes import bring_token, make_token
from amn_dist.farms.ray.pool import Pool, WorkerKind
from amn_dist.farms.schedule import Room, Schedule
from amn_dist.ops.devices import has_gpu

ALL, NETWORK, CPU = "workers", "network", "cpu"
"""Names of the pools: the only one, or the two a stream is split over."""
Started = TypeVar("Started")


class RayFarm:
    """Runs tasks on the workers of a Ray cluster, its own unless an address is given.

    devices: whether workers hold the GPUs there are; without, one pool takes every core.
    """

    def __init__(self, section: FarmSection, *, address: str | None = None, devices: bool = True) -> None:
        self._section = section
        self._tasks = 0
        if not ray.is_initialized():
            connect(section, address)
        resources = {name: have for name, have in ray.cluster_resources().items() if devices or name != "GPU"}
        self._pools = {name: Pool(*plan) for name, plan in plan_pools(section, resources).items()}

    @property
    def accelerated(self) -> bool:
        """As the first worker of those that run networks finds it; without a share of a GPU none is asked."""
        pool = self._pools.get(NETWORK) or self._pools[ALL]
        if not pool.kind.gpus:
            return False
        first = pool.first_worker(START_S)
        return first is None or first.accelerated

    def run(self, task: Task, numbers: Sequence[int]) -> Iterator[Report]:
        self._tasks += 1
        legs = [fed_by(leg, self._cores()) for leg in task.legs(split=CPU in self._pools)]
        pools = [leg.needs if CPU in self._pools else ALL for leg in legs]
        last = CPU if CPU in self._pools else ALL
        room = self._room(samples_together(legs[0]))
        schedule = Schedule(task, numbers, [*pools, last], room=room, retries=self._section.retries)
        return TaskDriver(f"{task.name}/{self._tasks}", task, legs, schedule, self._pools).reports()

    def _room(self, together: int) -> Room:
        """together: samples that a worker of the first leg is given at a time."""
        given = IN_FLIGHT * max(together // self._section.chunk, 1)
        waiting = sum(
            pool.size * (given if name == NETWORK else self._section.ahead) for name, pool in self._pools.items()
        )
        store = ray.cluster_resources().get("object_store_memory", 0) / 2
        return Room(waiting, int(self._section.evidence_gib * 2**30 or store))

    def _cores(self) -> int:
        """Beside each worker that holds a GPU, or a share of one."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return cores_beside(nodes, self._section.gpus_per_worker)

    def close(self) -> None:
        self._pools.clear()
        ray.shutdown()


def plan_pools(section: FarmSection, resources: Mapping[str, float]) -> dict[str, tuple[WorkerKind, int]]:
    """The pools a cluster of these resources (CPU, GPU) is given, with their sizes."""
    gpus, room = resources.get("GPU", 0.0), int(resources.get("CPU", 1)) // section.threads
    share = section.gpus_per_worker if gpus else 0.0
    with_device = int(gpus / section.gpus_per_worker) if gpus else room
    if gpus and not with_device:
        raise ConfigError(f"farm.gpus_per_worker: found {share}, but the cluster has {gpus:g} GPU(s); lower it")
    if section.pools == "one" or (section.pools == "auto" and not gpus):
        return {ALL: (WorkerKind(ALL, section.threads, share), max(min(section.workers or room, room, with_device), 1))}
    if room < 2:
        cores = resources.get("CPU", 1)
        raise StageError(f"farm: two pools need {2 * section.threads} CPU cores, found {cores:g}; set farm.pools=one")
    networks = min(section.network_workers or (with_device if gpus else 1), with_device, room - 1)
    rest = room - networks
    return {
        NETWORK: (WorkerKind(NETWORK, section.threads, share), networks),
        CPU: (WorkerKind(CPU, section.threads, 0.0, device=False), min(section.workers or rest, rest)),
    }


def cluster_has_gpu(section: FarmSection, address: str | None) -> bool:
    """Whether the cluster at an address has a GPU; without an address the one that is or would be started here."""
    if address is not None and not ray.is_initialized():
        connect(section, address)
    return bool(ray.cluster_resources().get("GPU", 0)) if ray.is_initialized() else has_gpu()


def start_patiently(start: Callable[[], Started], *, tries: int = 2) -> Started:
    """Start a node of Ray; again where a busy machine took longer than the 30 s Ray waits for its processes."""
    for _ in range(tries - 1):
        try:
            return start()
        except Exception as error:  # it is told by a bare Exception
            if "timed out during startup" not in str(error):
                raise
    return start()


def start_here(**options: Any) -> None:
    """Start a cluster for this process."""
    # "local": without it Ray would look for a cluster that somebody else runs here.
    local: dict[str, Any] = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    start_patiently(partial(ray.init, **local, **options))


def local_cores(section: FarmSection) -> int:
    """Cores that a cluster of this machine alone is told of: as many as there are, or as the workers ask for."""
    networks = (section.network_workers or 1) if section.pools == "two" else 0
    return max(len(os.sched_getaffinity(0)), (section.workers + networks) * section.threads)


def connect(section: FarmSection, address: str | None) -> None:
    """Join a running cluster, or start one for this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        if address is not None:
            bring_token()
            ray.init(address=address, **quiet)
        else:
            make_token()
            start_here(num_cpus=local_cores(section), **quiet)
    except Exception as error:  # Ray tells some faults by a bare Exception
        where = f"Ray at {printable(address)}" if address else "a Ray cluster on this machine"
        raise StageError(f"{where}: cannot be reached or started ({printable(error)}); see `amn doctor`") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminated)  # Ray puts its own there, which exits with code 15
