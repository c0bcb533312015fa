"""The report's charts: mIoU over thresholds, images by their own threshold, losses over steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amn_dist.methods import SETS
from amn_dist.report.charts import Axis, Chart, Line, fitted
from amn_dist.report.grids import activations, distinct
from amn_dist.report.run_folder import RunRecord
from amn_dist.report.stage_metrics import thinned
from amn_dist.report.tables import protocol_of

LOSSES = 6
"""Parts of a loss drawn in one chart."""
FAINT = 20
"""A part this many times smaller than the largest would lie on the axis: it is drawn in a chart with its like."""
BIN = 5
"""Thresholds that share a point of the curve of images."""


def threshold_charts(runs: Sequence[RunRecord]) -> list[Chart]:
    """For every set and protocol mIoU at every threshold, for every set images by their own best threshold; equal
    curves once."""
    charts = []
    for over in SETS:
        scored = [(row, label) for row, label in activations(runs, over) if row["best_miou"] is not None]
        for protocol in dict.fromkeys(protocol_of(row) for row, _ in scored):
            alike = [(row, label) for row, label in scored if protocol_of(row) == protocol]
            defaults = sorted({run.threshold for run in runs if run.rows(over)})
            charts.append(miou_chart(alike, f"{over}, {protocol} protocol", defaults))
        analysed = [(row, label) for row, label in scored if "images" in row]
        if any(row["images"]["own_quartiles"] for row, _ in analysed):
            charts.append(own_threshold_chart(analysed, over))
    return charts


def miou_chart(scored: Sequence[tuple[dict[str, Any], str]], of: str, defaults: Sequence[float]) -> Chart:
    """mIoU at every threshold, the best marked. of: set and protocol."""
    lines = tuple(
        Line(label, list(zip(row["thresholds"], row["miou"], strict=True)), (row["best_threshold"], row["best_miou"]))
        for row, label in scored
    )
    bests = "; ".join(f"{label} {100 * row['best_miou']:.1f} at {row['best_threshold']:.2f}" for row, label in scored)
    return Chart(
        title=f"mIoU at every threshold ({of})",
        description=f"One curve an activation; dots mark the best threshold: {bests}.",
        x=Axis("background threshold", 0, 1),
        y=fitted("mIoU, percent", [value for row, _ in scored for value in row["miou"]], percent=True),
        lines=lines,
        rules=tuple((value, f"default {value:.2f}") for value in defaults),
    )


def own_threshold_chart(scored: Sequence[tuple[dict[str, Any], str]], over: str) -> Chart:
    """Share of images by the threshold that is best for them alone."""
    lines = []
    for row, label in scored:
        own, images = row["images"]["own"], max(sum(row["images"]["own"]), 1)
        points = [((at + 0.5 + BIN / 2) / 100, sum(own[at : at + BIN]) / images) for at in range(0, len(own), BIN)]
        at_best = min(points, key=lambda point: abs(point[0] - row["best_threshold"]))
        lines.append(Line(label, points, at_best))
    return Chart(
        title=f"Images by their own best threshold ({over})",
        description="Share of images in steps of 0.05; dots mark the best threshold of the whole set. "
        "The wider a curve, the worse one threshold serves all images.",
        x=Axis("own best threshold", 0, 1),
        y=fitted("images, percent", [y for line in lines for _, y in line.points], percent=True, zero=True),
        lines=tuple(lines),
    )


def loss_charts(runs: Sequence[RunRecord]) -> list[Chart]:
    """The losses of every Fit over its steps; a Fit that several runs share is drawn once."""
    charts = []
    names = dict.fromkeys(stage.name for run in runs for stage in run.stages if stage.verb == "fit")
    for name in names:
        fits = [(dict(s.metrics.losses), run.label) for run in runs for s in run.stages if s.name == name]
        for losses, labels in distinct([pair for pair in fits if pair[0]]):
            charts += [loss_chart(name, alike, labels) for alike in by_size(losses)]
    return charts


def by_size(losses: dict[str, list[tuple[float, float]]]) -> list[dict[str, list[tuple[float, float]]]]:
    """The parts of a loss that one chart can show together: the large ones, and where there are any the faint ones."""
    peaks = {part: max(abs(y) for _, y in points) for part, points in losses.items()}
    least = max(peaks.values()) / FAINT
    large = {part: points for part, points in losses.items() if peaks[part] >= least}
    faint = {part: points for part, points in losses.items() if peaks[part] < least}
    return [large, faint] if faint else [large]


def loss_chart(name: str, losses: dict[str, list[tuple[float, float]]], labels: Sequence[str]) -> Chart:
    """The total loss and its parts."""
    drawn = {part: thinned(points) for part, points in list(losses.items())[:LOSSES]}
    ends = ", ".join(f"{part} {points[0][1]:.4g} to {points[-1][1]:.4g}" for part, points in drawn.items())
    left_out = len(losses) - len(drawn)
    return Chart(
        title=f"Losses of {name}: {', '.join(labels)}",
        description=f"First to last: {ends}." + (f" {left_out} more parts are not drawn." if left_out else ""),
        x=fitted("step", [x for points in drawn.values() for x, _ in points], zero=True),
        y=fitted("loss", [y for points in drawn.values() for _, y in points], zero=True),
        lines=tuple(Line(part, points) for part, points in drawn.items()),
    )
