"""A run of seconds over a few images of a set, with everything but its length as configured: what each stage costs.

It is run twice, in processes of its own as `amn run` is: first over very few images, which also leaves compiled code
behind, then over as many as a few seconds a stage allow.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amn_dist.commands.estimates.cost import Cost, Measured, fit_cost, fullest, map_cost
from amn_dist.config import Config, FitSection, dump_config
from amn_dist.errors import StageError, printable
from amn_dist.methods import Stage, stages
from amn_dist.ops.devices import has_gpu
from amn_dist.report.stage_metrics import read_records
from amn_dist.runs.machine import workers_here
from amn_dist.runs.run import write_text
from amn_dist.shards.sample import write_sample
from amn_dist.shards.shardset import ShardSet
from amn_dist.telemetry import METRICS
from amn_dist.training.launchers import with_processes

FIT_S, MAP_S = 10.0, 20.0
"""Seconds that the second trial may take for a Fit and a Map, as the first one tells: a Map's is too much by what every
chunk costs, since its chunks are of one image."""
SOME = 96
"""Images of the second trial at most, a worker."""
LEAST_STEPS, MOST_STEPS = 3, 12
"""Optimiser steps of the second trial; the first half of them warms up."""
LONG_S = 180.0
"""Seconds of a first trial after which there is no second: what starting takes is nothing beside what follows."""
LIMIT_S = 400.0
"""Seconds of a trial at most."""


@dataclass(frozen=True)
class Sample:
    """How much a trial does. images: of every set, in shards of `shard`. batches, steps: of each Fit."""

    images: int
    shard: int
    batches: Mapping[str, int]
    steps: Mapping[str, int]


def measure(config: Config, sets: Mapping[str, ShardSet], outside: Mapping[str, ShardSet]) -> Measured:
    """Cost of every stage on this machine.

    sets: images by role. outside: other sets that stages read, by setting. Raises StageError where a trial ends badly
    or takes too long.
    """
    workers = farm_workers(config)
    sample = first_sample(config, workers)
    began = time.monotonic()
    first = try_out(config, sets, outside, sample, workers)
    if time.monotonic() - began > LONG_S:
        return first
    train = sets["train"]
    second = second_sample(config, first, len(train), workers, max(train.shard_sizes))
    return try_out(config, sets, outside, second, workers)


def farm_workers(config: Config) -> int:
    """Workers that share the images of a Map on this machine; 1 where they are of two kinds, or share a GPU."""
    return 1 if config.farm.pools == "two" or has_gpu() else workers_here(config)


def fits(config: Config) -> dict[str, FitSection]:
    """The sections of the Fits of a method, by stage."""
    return {stage.name: getattr(config, stage.name) for stage in stages(config) if stage.verb == "fit"}


def first_sample(config: Config, workers: int) -> Sample:
    """Two images a worker and a process, two steps."""
    least = 2 * with_processes(config.engine).processes
    batches = {name: min(section.batch, least) for name, section in fits(config).items()}
    return Sample(max(2 * workers, least), 1, batches, dict.fromkeys(batches, 2))


def second_sample(config: Config, first: Measured, images: int, workers: int, shard_size: int) -> Sample:
    """As many images and steps as the time allows, by what the first trial took; not fewer than that had.

    images, shard_size: of the training set. Chunks are as large as in the run where every worker gets two.
    """
    before, processes = first_sample(config, workers), with_processes(config.engine).processes
    slowest = max(cost.each / workers for name, cost in first.costs.items() if name not in before.steps)
    count = max(min(int(MAP_S / max(slowest, 1e-6)), SOME * workers, images), before.images)
    batches, steps = {}, {}
    for name, section in fits(config).items():
        each = max(first.costs[name].each, 1e-6)
        share = int(FIT_S / (LEAST_STEPS * each)) // processes * processes
        batches[name] = min(section.batch, count, max(share, before.batches[name]))
        steps[name] = min(max(int(FIT_S / (batches[name] * each)), LEAST_STEPS), MOST_STEPS)
    chunk = max(min(count // (2 * workers), config.farm.chunk, shard_size), 1)
    return Sample(count, chunk, batches, steps)


def try_out(
    config: Config, sets: Mapping[str, ShardSet], outside: Mapping[str, ShardSet], sample: Sample, workers: int
) -> Measured:
    """Run every stage over a sample and read what it took."""
    with tempfile.TemporaryDirectory(prefix="amn-trial-") as name:
        folder = Path(name)
        for role, images in {**sets, **outside}.items():
            write_sample(images, folder / role, count=sample.images, shard_size=sample.shard)
        small = trial_config(config, sample, sets, outside)
        write_text(folder / "trial.yaml", dump_config(small))
        began = time.monotonic()
        run_alone(folder)
        seconds = time.monotonic() - began
        over = {role: ShardSet.open(str(folder / role)).shard_sizes for role in sets}
        recorded = [(stage, records_of(folder, stage)) for stage in stages(small)]
        costs = {stage.name: _cost(small, stage, records, over, workers) for stage, records in recorded if records}
    return Measured(costs, max(seconds - sum(cost.seconds for cost in costs.values()), 0.0))


def trial_config(
    config: Config, sample: Sample, sets: Mapping[str, ShardSet], outside: Mapping[str, ShardSet]
) -> Config:
    """The configuration with the length of a trial, and the names of its sets."""
    lengths = {
        name: section.model_copy(update={"batch": sample.batches[name], "steps": sample.steps[name], "log_every": 1})
        for name, section in fits(config).items()
    }
    data = config.data.model_copy(update={"train": "train", "val": "val" if "val" in sets else None})
    farm = config.farm.model_copy(update={"chunk": sample.shard})
    moved = {
        stage.name: getattr(config, stage.name).model_copy(update={stage.outside: stage.outside})
        for stage in stages(config)
        if stage.outside in outside
    }
    return config.model_copy(update={**lengths, **moved, "data": data, "farm": farm, "name": "trial"})


def run_alone(folder: Path) -> None:
    """`amn run` of trial.yaml, in processes of its own, that end with it."""
    command = [sys.executable, "-m", "amn_dist", "run", str(folder / "trial.yaml"), "--no-reuse"]
    command += ["--data", str(folder), "--run", str(folder / "run")]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            _, said = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise StageError(f"a trial of a few images took longer than {LIMIT_S:.0f} s") from error
        finally:
            _end(process)
    if process.returncode:
        raise StageError(f"a trial ended badly ({printable(last_line(said), 600)})")


def last_line(said: bytes) -> str:
    """What a command said last, without the word that it is an error."""
    lines = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return lines[-1].removeprefix("error: ")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that has not ended, with all it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def records_of(folder: Path, stage: Stage) -> list[dict[str, Any]]:
    """What a stage of a trial wrote of its time; nothing where it went through nothing, as scores without truth."""
    path = folder / "run" / stage.name / METRICS
    records = [record for record in read_records(path) if record is not None] if path.is_file() else []
    return records if any("step" in record for record in records) else []


def _cost(
    config: Config,
    stage: Stage,
    records: Sequence[dict[str, Any]],
    sets: Mapping[str, tuple[int, ...]],
    workers: int,
) -> Cost:
    if stage.verb == "fit":
        return fit_cost(records, getattr(config, stage.name).batch)
    sizes = [*sets.values()] if stage.verb == "score" else [sets[stage.over]]
    images = sum(fullest(of_set, config.farm.chunk, workers) for of_set in sizes)
    warm = min(workers * config.farm.chunk, math.ceil(sum(map(sum, sizes)) / 2))
    return map_cost(records, warm=warm, images=images, workers=workers)
