"""What a run says while it works: one line of metrics for machines, one bar for people, the environment once."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import io
import json
import math
import os
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from amn_dist.documents import read_json
from amn_dist.errors import MESSAGE, StageError, printable

Observe = Callable[[dict[str, Any]], None]
"""Takes one record of metrics. Records with `step` and `steps` move the bar."""

METRICS = "metrics.jsonl"
"""Every record of a stage, one a line."""

FOLLOW_S = 1.0
"""Seconds between two looks at what another process has written."""

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
        "packages": versions(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def versions() -> dict[str, str | None]:
    """Installed versions of this package and of those its results depend on."""
    return {name: package_version(name) for name in ("amn-dist", *PACKAGES)}


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


@dataclass
class StageLog:
    """Where the records of a stage go: metrics.jsonl, TensorBoard's event file, the bar, the console."""

    folder: Path
    name: str
    console: Console
    bar: Progress
    line: TaskID
    lines: FileIO
    events: EventFile
    last_said: float = 0.0

    def __call__(self, record: dict[str, Any]) -> None:
        """Keep a record and show it; raises StageError where metrics.jsonl cannot be written."""
        line = json.dumps({"time": round(time.time(), 3), "stage": self.name, **defined(record)}) + "\n"
        try:
            append_whole(self.lines, line.encode())
        except OSError as fault:
            path, advice = self.folder / METRICS, "make room, then the same command goes on"
            raise StageError(f"{path}: cannot be written ({printable(fault)}); {advice}") from fault
        self.events(record)
        self.show(record)

    def show(self, record: dict[str, Any]) -> None:
        """Show a record that is kept elsewhere."""
        if "step" in record and "steps" in record:
            self.bar.update(self.line, completed=record["step"], total=record["steps"], note=summary(record))
        if "warning" in record:
            self.console.print(
                f"{self.name}: {printable(record['warning'], MESSAGE)}", style="yellow", markup=False, highlight=False
            )
        if not self.console.is_terminal and "step" in record and time.monotonic() - self.last_said > 10:
            self.last_said = time.monotonic()
            said = f"{self.name} {record['step']}/{record['steps']} {summary(record)}"
            self.console.print(said, markup=False, highlight=False)


def defined(record: dict[str, Any]) -> dict[str, Any]:
    """A record without figures that are not finite, such as the norm of a gradient that overflows: JSON has none."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }


def append_whole(file: FileIO, content: bytes) -> None:
    """Append to a file all of some bytes or none; raises OSError when they do not fit."""
    end = file.seek(0, os.SEEK_END)
    try:
        written = file.write(content)
        if written != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        file.truncate(end)
        raise


@dataclass
class EventFile:
    """Figures of a stage as TensorBoard reads them, one curve a name; opened when the first figure comes.

    They are all in metrics.jsonl too: where they cannot be written they end, and the stage goes on.
    """

    folder: Path
    file: FileIO | None = None
    ended: bool = False

    def __call__(self, record: dict[str, Any]) -> None:
        if "step" not in record or self.ended:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        figures = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in record.items()
            if name not in ("step", "steps") and isinstance(value, int | float)
        ]
        try:
            if self.file is None:
                self.folder.mkdir(exist_ok=True)
                name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
                self.file = (self.folder / name).open("xb", buffering=0)
                append_event(self.file, Event(wall_time=time.time(), file_version="brain.Event:2"))
            append_event(self.file, Event(wall_time=time.time(), step=record["step"], summary=Summary(value=figures)))
        except OSError:
            self.ended = True

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def append_event(file: FileIO, event: Any) -> None:
    """Append an event in TensorBoard's framing: length, its checksum, content, its checksum."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    framed = io.BytesIO()
    RecordWriter(framed).write(event.SerializeToString())
    append_whole(file, framed.getvalue())


@contextlib.contextmanager
def stage_log(folder: Path, name: str, console: Console) -> Iterator[StageLog]:
    """Open a stage's metrics.jsonl (appended to on resume), event files beside it, and its progress bar.

    Yields what records one dict: it gains `time` (seconds since the epoch) and `stage`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bar = Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not console.is_terminal,
    )
    with (
        (folder / METRICS).open("ab", buffering=0) as lines,
        contextlib.closing(EventFile(folder / "tensorboard")) as events,
        bar,
    ):
        line = bar.add_task(name, total=None, note="")
        yield StageLog(folder, name, console, bar, line, lines, events, time.monotonic())


@contextlib.contextmanager
def following(log: StageLog, *, bring: Callable[[], None] = lambda: None, every_s: float = FOLLOW_S) -> Iterator[None]:
    """Show what another process adds to a stage's metrics.jsonl, until the block ends.

    bring: called before each look, every `every_s` seconds, to bring what was added elsewhere.
    """
    over = threading.Event()
    path = log.folder / METRICS
    start = path.stat().st_size if path.is_file() else 0

    def follow() -> None:
        position, ending = start, False
        while not ending:
            ending = over.wait(every_s)
            bring()
            with path.open("rb") as lines:
                lines.seek(position)
                added = lines.read()
            whole = whole_lines(added)
            position += len(whole)
            for record in filter(None, map(parse_record, whole.splitlines())):
                log.show(record)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def parse_record(line: bytes) -> dict[str, Any] | None:
    """The record a line of metrics.jsonl holds; None where it is damaged or holds something else."""
    try:
        record = read_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def whole_lines(content: bytes) -> bytes:
    """A file that grows, up to its last whole line."""
    return content[: content.rfind(b"\n") + 1]


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
        parts.append("busy: " + " ".join(f"{printable(name, 40)} {fraction:.0%}" for name, fraction in fullest_first))
    return ", ".join(parts)
