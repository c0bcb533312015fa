"""What a run says while it works: one line of metrics for machines, one bar for people, the environment once."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Observe = Callable[[dict[str, Any]], None]
"""Takes one record of metrics. Records with `step` and `steps` move the bar."""

PACKAGES = (
    "torch",
    "torchvision",
    "deepspeed",
    "webdataset",
    "nvidia-dali-cuda130",
    "ray",
    "numpy",
    "pydensecrf2",
    "numba",
)


def environment() -> dict[str, Any]:
    """Versions and hardware that decide how fast and how exactly a run repeats."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: package_version(name) for name in ("amn-dist", *PACKAGES)},
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def package_version(name: str) -> str | None:
    """Installed version of a distribution, None when it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's own name for itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


@contextlib.contextmanager
def stage_log(folder: Path, name: str, console: Console) -> Iterator[Observe]:
    """Open a stage's metrics.jsonl (appended to on resume) and its progress bar.

    Yields a function that records one dict: it gains `time` (seconds since the epoch) and `stage`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bar = Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as lines, bar:
        line = bar.add_task(name, total=None, note="")
        last_said = time.monotonic()

        def observe(record: dict[str, Any]) -> None:
            nonlocal last_said
            lines.write(json.dumps({"time": round(time.time(), 3), "stage": name, **record}) + "\n")
            lines.flush()
            if "step" in record and "steps" in record:
                bar.update(line, completed=record["step"], total=record["steps"], note=summary(record))
            if "warning" in record:
                console.print(f"{name}: {record['warning']}", style="yellow", markup=False, highlight=False)
            if not console.is_terminal and "step" in record and time.monotonic() - last_said > 10:
                last_said = time.monotonic()
                console.print(f"{name} {record['step']}/{record['steps']} {summary(record)}", highlight=False)

        yield observe


def summary(record: dict[str, Any]) -> str:
    """The few figures of a record a person wants to see."""
    parts = []
    if "total" in record:
        parts.append(f"loss {record['total']:.4f}")
    if "images_per_s" in record:
        parts.append(f"{record['images_per_s']:.1f} images/s")
    if "data_wait" in record:
        parts.append(f"data_wait {record['data_wait']:.0%}")
    if "busy" in record:
        fullest_first = sorted(record["busy"].items(), key=lambda pool: -pool[1])
        parts.append("busy: " + " ".join(f"{name} {fraction:.0%}" for name, fraction in fullest_first))
    return ", ".join(parts)
