"""What the metrics of a stage say: losses by step, speed, time. Damaged lines are counted and left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from amn_dist.storage.paths import AnyPath
from amn_dist.telemetry import parse_record

Points = list[tuple[float, float]]

NOT_LOSSES = {"time", "step", "steps", "lr", "images_per_s", "data_wait", "gradient_norm", "memory_gib", "seconds"}
"""Figures of a record that are not losses."""


@dataclass(frozen=True)
class StageMetrics:
    """The records of a stage. losses: (step, value), ascending, `total` first. seconds: of the call that ended it.
    images_per_s: the median of a Fit, the last of a Map, which counts from its beginning."""

    losses: Mapping[str, Points]
    seconds: float | None
    images_per_s: float | None
    damaged: int


def read_stage_metrics(path: AnyPath, *, verb: str) -> StageMetrics:
    """The metrics of a stage; of a step that was done twice the last counts."""
    losses: dict[str, dict[float, float]] = {}
    rates: list[float] = []
    seconds, damaged = None, 0
    for record in read_records(path):
        if record is None:
            damaged += 1
            continue
        figures = {name: float(value) for name, value in record.items() if is_figure(value)}
        seconds = figures.get("seconds", seconds)
        rates += [figures["images_per_s"]] if "images_per_s" in figures else []
        if "step" in figures and verb == "fit":
            for name in figures.keys() - NOT_LOSSES:
                losses.setdefault(name, {})[figures["step"]] = figures[name]
    names = sorted(losses, key=lambda name: (name != "total", name))
    rate = None if not rates else median(rates) if verb == "fit" else rates[-1]
    return StageMetrics({name: sorted(losses[name].items()) for name in names}, seconds, rate, damaged)


def read_records(path: AnyPath) -> Iterator[dict[str, Any] | None]:
    """The records of a metrics.jsonl, None for a line that is none; nothing where there is no file."""
    content = path.read_bytes() if path.is_file() else b""
    yield from map(parse_record, content.removesuffix(b"\n").split(b"\n") if content else ())


def is_figure(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def thinned(points: Sequence[tuple[float, float]], count: int = 300) -> Points:
    """At most `count` points, evenly chosen, the first and the last among them."""
    if len(points) <= count:
        return list(points)
    return [points[round(i * (len(points) - 1) / (count - 1))] for i in range(count)]
