"""Whether disk and memory hold what a run writes and computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from amn_dist.errors import PLACE, AmnError, ConfigError, printable
from amn_dist.methods import Stage
from amn_dist.ops.devices import has_gpu
from amn_dist.runs.estimates import Bounds, disk_of_fit, disk_of_map, memory_of
from amn_dist.runs.findings import Findings
from amn_dist.runs.machine import free_disk, memory_here, workers_here
from amn_dist.runs.prospect import Prospect

NEGLIGIBLE = 2**26
"""Bytes of disk below which nothing is said: small runs are for trying what a full disk does."""
TIGHT = 1.2
"""Free disk over the most a run may write below which a note says so."""


def check_disk(prospect: Prospect) -> Findings:
    """A run that the free space of its folder cannot hold, or hardly."""
    if not isinstance(prospect.run.folder, Path):
        return
    takes = {stage.name: bounds for stage in prospect.left if (bounds := _disk_of(prospect, stage)) is not None}
    whole, free = sum(takes.values(), Bounds()), free_disk(prospect.run.folder)
    where = printable(prospect.run.folder, PLACE)
    if whole.least > max(free, NEGLIGIBLE):
        parts = _largest({name: bounds.least for name, bounds in takes.items()})
        yield ConfigError(
            f"{where}: found {gib(free)} free, expected {gib(whole.least)} at least for what the run writes ({parts}); "
            "free space, or choose another --run"
        )
    elif whole.most > max(free / TIGHT, NEGLIGIBLE):
        parts = _largest({name: bounds.most for name, bounds in takes.items()})
        yield f"{where}: {gib(free)} are free, up to {gib(whole.most)} are written ({parts}); it may become full"


def check_memory(prospect: Prospect) -> Findings:
    """Networks of Maps that memory cannot hold at the largest photograph, or not as many as there are workers."""
    if prospect.address is not None:
        return
    total, available = memory_here()
    workers, device = workers_here(prospect.config), "GPU" if has_gpu() else "machine"
    for stage in prospect.left:
        if stage.verb != "map" or stage.checkpoint is None:
            continue
        largest = prospect.looked[stage.over].largest
        least, scale = memory_of(prospect.config, stage, prospect.looked[stage.over])
        key = f"{stage.name}.scales" if scale != 1 else stage.name
        demand = (
            f"{largest.key} ({largest.width}x{largest.height} pixels) at scale {scale:g} takes {gib(least)} at least"
        )
        if least > total:
            yield ConfigError(f"{key}: {demand}, this {device} has {gib(total)}; set smaller scales, or reduce it")
        elif least * (1 if has_gpu() else workers) > available:
            yield f"{key}: {demand}, {workers} worker(s) have {gib(available)}; set fewer farm.workers"


def gib(count: float) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.0f} MiB"


def _largest(takes: Mapping[str, float]) -> str:
    """The three stages that write most."""
    names = sorted(takes, key=lambda name: takes[name], reverse=True)[:3]
    return ", ".join(f"{name} {gib(takes[name])}" for name in names)


def _disk_of(prospect: Prospect, stage: Stage) -> Bounds | None:
    """Bytes a Fit or a Map writes, at least those that are surely not there yet."""
    if stage.verb == "score":
        return None
    try:
        if stage.verb == "fit":
            bounds = disk_of_fit(getattr(prospect.config, stage.name))
        else:
            bounds = disk_of_map(stage.made(prospect.config), prospect.looked[stage.over])
        return Bounds(0.0, bounds.most) if prospect.may_be_there(stage) else bounds
    except AmnError:  # of a backbone that cannot be, or a neighbour's damaged file: told where it is looked at
        return None
