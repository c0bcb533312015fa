"""Both farms behind one question: the records of shards, by our workers and by Ray Data's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amn_dist.config import FarmSection
from amn_dist.farms.farm import Task
from amn_dist.farms.ray.farm import RayFarm
from benchmarks.rivals import ray_data

OURS, PEER = "amn-dist", "Ray Data"
WORKERS = 2
CORES = 2 * WORKERS + 2
"""That a cluster is told of: tasks of Ray Data that read and write need one beside the actors."""


def our_farm(*, split: bool = False) -> RayFarm:
    """WORKERS workers that do it all, or as many of either kind."""
    pools = {"pools": "two", "network_workers": WORKERS} if split else {"pools": "one"}
    return RayFarm(FarmSection.model_validate({"workers": WORKERS, **pools}), devices=False)


def our_records(farm: RayFarm, task: Task, numbers: Sequence[int]) -> dict[int, Any]:
    """Record of every shard by its number."""
    return {report.shard: report.record for report in farm.run(task, numbers) if report.shard is not None}


def hired_records(task: Task, numbers: Sequence[int], *, split: bool = False) -> dict[int, Any]:
    """The same by workers that are started for it, as Ray Data starts its own in every call."""
    return our_records(our_farm(split=split), task, numbers)


def peer_records(task: Task, numbers: Sequence[int], *, split: bool = False) -> dict[int, Any]:
    return dict(ray_data.run(task, numbers, workers=WORKERS, split=split))
