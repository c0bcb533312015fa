"""What a stage costs: what a trial of it took, and what every further image takes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_RATE = 1e-3
"""Images a second, as finely as records say it."""


@dataclass(frozen=True)
class Cost:
    """Of a trial of a stage. seconds: from its beginning to its end, processes started included. images: those it went
    through, on the worker that had most. each: seconds of a further image there."""

    seconds: float
    images: int
    each: float

    def of(self, images: int) -> float:
        """Seconds of a stage over so many images."""
        return max(self.seconds + (images - self.images) * self.each, 0.0)


@dataclass(frozen=True)
class Measured:
    """Of a trial. costs: by the stage that a stream begins with. start_s: seconds of a run outside its stages."""

    costs: dict[str, Cost]
    start_s: float


def fullest(sizes: Iterable[int], chunk: int, workers: int) -> int:
    """Images that the fullest of some workers gets when the chunks of shards go to whoever is free.

    sizes: samples of every shard. One worker gets them all.
    """
    loads = [0] * workers
    for size in sizes:
        for start in range(0, size, chunk):
            heapq.heapreplace(loads, loads[0] + min(chunk, size - start))
    return max(loads)


def fit_cost(records: Sequence[dict[str, Any]], batch: int) -> Cost:
    """Of a Fit that wrote a record a step. The first half warms up: its batches were prepared before it began."""
    steps = [record for record in records if "step" in record]
    first, last = steps[max(len(steps) // 2 - 1, 0)], steps[-1]
    each = 1 / max(last["images_per_s"], LEAST_RATE) if first is last else _between(first, last) / batch
    return Cost(ended(records), batch * last["step"], each)


def map_cost(records: Sequence[dict[str, Any]], *, warm: int, images: int, workers: int) -> Cost:
    """Of a Map, or scores: a record a shard. warm: images with which workers warm up. images: on the fullest one."""
    shards = [record for record in records if "step" in record]
    last = shards[-1]
    first = next(record for record in shards if record["step"] >= min(warm, last["step"]))
    each = 1 / max(last["images_per_s"], LEAST_RATE) if first is last else _between(first, last)
    return Cost(ended(records), images, each * workers)


def _between(first: dict[str, Any], last: dict[str, Any]) -> float:
    """Seconds of a step of a record between two."""
    return max(float(last["time"] - first["time"]), 0.0) / max(last["step"] - first["step"], 1)


def ended(records: Sequence[dict[str, Any]]) -> float:
    """Seconds a stage took when it ended."""
    return next(float(record["seconds"]) for record in reversed(records) if record.get("done"))
