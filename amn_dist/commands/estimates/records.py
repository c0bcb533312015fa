"""What the metrics of a stage say of its time."""

from __future__ import annotations

from typing import Any

from amn_dist.report.stage_metrics import is_figure, read_records
from amn_dist.storage.paths import AnyPath
from amn_dist.telemetry import METRICS


def figures(folder: AnyPath, name: str) -> list[tuple[dict[str, Any], float]]:
    """The records of a stage's metrics that hold a figure, and the figure; damaged lines are left out."""
    records = [record for record in read_records(folder / METRICS) if record is not None]
    return [(record, float(record[name])) for record in records if is_figure(record.get(name))]


def measured(folder: AnyPath) -> float | None:
    """Seconds the stage took when it ended."""
    ends = [seconds for record, seconds in figures(folder, "seconds") if record.get("done")]
    return ends[-1] if ends else None


def rated(folder: AnyPath) -> float | None:
    """The stage's last rate, images a second."""
    rates = [rate for _, rate in figures(folder, "images_per_s") if rate > 0]
    return rates[-1] if rates else None
