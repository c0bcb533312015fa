"""How fast a Fit goes, how much of that it waits for data, and what memory it takes."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from amn_dist.records import Batch


@dataclass(slots=True)
class Meter:
    """Times the steps since it was last read. batch: images a step over all ranks."""

    batch: int
    began: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    steps: int = 0

    def next(self, source: Iterator[Batch]) -> Batch:
        """The next batch; the time it takes is waiting for data."""
        before = time.perf_counter()
        batch = next(source)
        self.waited += time.perf_counter() - before
        self.steps += 1
        return batch

    def read(self) -> dict[str, float]:
        """images_per_s over all ranks and data_wait, the share of time (0..1); then begin anew."""
        now = time.perf_counter()
        elapsed = max(now - self.began, 1e-9)
        figures = {"images_per_s": round(self.steps * self.batch / elapsed, 3), "data_wait": self.waited / elapsed}
        self.began, self.waited, self.steps = now, 0.0, 0
        return figures


@dataclass(slots=True)
class Pause:
    """Time between two checkpoints. seconds: how long it lasts."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Count from now on."""
        self.began = time.monotonic()

    def is_over(self) -> bool:
        """Whether it has lasted long enough."""
        return time.monotonic() - self.began >= self.seconds


def peak_memory_gib(device: torch.device) -> float:
    """Most memory this process has held so far: on the accelerator if it has one, else resident."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)
