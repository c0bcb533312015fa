"""How everything here is timed: rivals take turns, every figure comes with its spread and its machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(os.environ.get("BENCH_RESULTS") or Path(__file__).resolve().parent / "results")
"""Where figures are kept; BENCH_RESULTS names another folder."""
PHOTOGRAPHS = Path(__file__).resolve().parents[1].parent / "shared/data/coco-sample"
"""Photographs in COCO's layout, unless a benchmark is given others."""


@dataclass(frozen=True)
class Timing:
    """Seconds of every timed round of one rival."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def as_json(self, *, per: int = 1) -> dict[str, Any]:
        """Median, least and most seconds of one of `per` things a round does."""
        low, high = min(self.seconds), max(self.seconds)
        figures = {"median_s": self.median / per, "min_s": low / per, "max_s": high / per}
        return {**{name: round(value, 7) for name, value in figures.items()}, "n": len(self.seconds)}


def race(rivals: Mapping[str, Callable[[], Any]], *, rounds: int = 5, warmup: int = 1) -> dict[str, Timing]:
    """Time rivals round by round, so that what disturbs the machine disturbs all alike; device work is waited for."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(-warmup, rounds):
        for name, call in rivals.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def rates(timings: Mapping[str, Timing], count: int, *, per: int = 1) -> dict[str, Any]:
    """Images a second of every rival, and how many times the first one's that is. count: images of a round."""
    base = next(iter(timings.values())).median
    return {
        name: {
            **timing.as_json(per=per),
            "images_per_s": round(count / timing.median, 3),
            "ratio": round(base / timing.median, 3),
        }
        for name, timing in timings.items()
    }


def wait() -> None:
    """Let the device finish."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def one_core() -> None:
    """Hold this process and its threads to a single core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """As many threads in torch's loops as count, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def environment() -> dict[str, Any]:
    """Versions and hardware; the least of it where the package's own record lacks its libraries."""
    try:
        from amn_dist import telemetry
    except ImportError:
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return {"python": platform.python_version(), "packages": {"torch": torch.__version__}, "devices": devices}
    return telemetry.environment()


def write_result(name: str, record: Mapping[str, Any]) -> Path:
    """Keep a benchmark's figures with command, environment and load of the machine as results/NAME.json."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    facts = {
        "command": f"python -m benchmarks.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}".strip(),
        "environment": environment(),
        "load_1min_before": round(os.getloadavg()[0], 2),
    }
    path.write_text(json.dumps({**facts, **record}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))
    return path
