"""The report's tables: rows of cells, one run beside the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from amn_dist.methods import SETS, in_order, title_of
from amn_dist.report.run_folder import RunRecord, StageRecord
from amn_dist.report.tables import has_threshold, percent, protocol_of, short, threshold_figures


@dataclass(frozen=True)
class GridCell:
    """Text of a table. best: the highest of its row. share: 0..1, shown as a tint."""

    text: str
    best: bool = False
    share: float | None = None


@dataclass(frozen=True)
class Grid:
    """A table. heads: of the columns, the first over the names of the rows. note: what to know beside the caption."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[GridCell, ...]], ...]
    note: str = ""


def summary_grid(runs: Sequence[RunRecord]) -> Grid:
    """mIoU of every artefact (rows) of every run (columns)."""
    rows = []
    for over, name in ((role, name) for role in SETS for name in artefacts(runs, role)):
        scores = [run.rows(over).get(name) for run in runs]
        protocol = protocol_of(*scores)
        # Figures of several protocols are not held against each other.
        compared = len({row.get("protocol", "voc") for row in scores if row is not None}) == 1
        values = [row.get("default_miou", row.get("miou")) if row is not None and compared else None for row in scores]
        cells = [GridCell("" if row is None else short(row).replace(", ", "\n")) for row in scores]
        rows.append((f"{title_of(name)} ({over})", (GridCell(protocol), *marked(cells, values))))
    return Grid("mIoU in percent", ("artefact (set)", "protocol", *(run.label for run in runs)), tuple(rows))


def artefacts(runs: Sequence[RunRecord], over: str) -> list[str]:
    """What is scored of any of the runs over a set."""
    return in_order(name for run in runs for name in run.rows(over))


def marked(cells: Sequence[GridCell], values: Sequence[float | None]) -> tuple[GridCell, ...]:
    """The cells, the highest value marked where values differ."""
    rounded = [None if value is None else round(value, 3) for value in values]
    defined = [value for value in rounded if value is not None]
    top = max(defined) if defined and max(defined) > min(defined) else None
    return tuple(
        GridCell(cell.text, top is not None and value == top) for cell, value in zip(cells, rounded, strict=True)
    )


def threshold_grid(runs: Sequence[RunRecord]) -> Grid:
    """The threshold analysis of every activation of every run."""
    heads = (
        "activation",
        "protocol",
        "default",
        "best",
        "mean",
        "within 1, 2 points",
        "own best: quartiles",
        "near",
        "oracle",
    )
    rows = []
    for over in SETS:
        for row, label in activations(runs, over):
            if "images" in row:
                first = [f"{percent(row[f'{at}_miou'])} at {row[f'{at}_threshold']:.2f}" for at in ("default", "best")]
                texts = (protocol_of(row), *first, *threshold_figures(row))
                rows.append((f"{label}, {over}", tuple(map(GridCell, texts))))
    return Grid("How much hangs on the threshold", (*heads, "cv", "gini", "gap"), tuple(rows))


def activations(runs: Sequence[RunRecord], over: str) -> list[tuple[dict[str, Any], str]]:
    """Scores of activations over a set, and what they are of; equal ones once."""
    labelled = []
    for name in artefacts(runs, over):
        rows = [(run.rows(over)[name], run.label) for run in runs if name in run.rows(over)]
        for row, labels in distinct([pair for pair in rows if has_threshold(pair[0])]):
            labelled.append((row, f"{title_of(name)} ({', '.join(labels)})"))
    return labelled


def time_grid(runs: Sequence[RunRecord]) -> Grid:
    """Seconds and images/s of every stage of every run."""
    names = dict.fromkeys(stage.name for run in runs for stage in run.stages)
    rows = []
    for name in names:
        records = [next((stage for stage in run.stages if stage.name == name), None) for run in runs]
        rows.append((name, tuple(cell for stage in records for cell in time_cells(stage))))
    heads = tuple(head for run in runs for head in (f"{run.label}: s", "images/s"))
    note = "A stage that was taken from another run shows the time it took there."
    return Grid("Time by stage", ("stage", *heads), tuple(rows), note)


def time_cells(stage: StageRecord | None) -> tuple[GridCell, GridCell]:
    """Seconds and images/s of one stage."""
    if stage is None:
        return GridCell(""), GridCell("")
    if stage.metrics.seconds is None and stage.follows is not None and stage.state == "done":
        return GridCell(f"with {stage.follows}"), GridCell("")
    seconds = stage.state if stage.metrics.seconds is None else f"{stage.metrics.seconds:,.0f}"
    rate = stage.metrics.images_per_s
    return GridCell(seconds), GridCell("" if rate is None else f"{rate:,.1f}")


def run_grid(run: RunRecord) -> Grid:
    """The stages of a run with their digests and code."""
    rows = tuple(
        (s.name, (GridCell(s.verb), GridCell(s.state), GridCell(s.digest[:16]), GridCell(s.code))) for s in run.stages
    )
    return Grid("Stages", ("stage", "verb", "state", "digest", "code"), rows)


def distinct(values: Sequence[tuple[Any, str]]) -> list[tuple[Any, list[str]]]:
    """Equal values once, each with the labels it has, in the order of their first."""
    merged: list[tuple[Any, list[str]]] = []
    for value, group in groupby(values, key=lambda pair: pair[0]):
        labels = [label for _, label in group]
        earlier = next((names for other, names in merged if other == value), None)
        if earlier is None:
            merged.append((value, labels))
        else:
            earlier += labels
    return merged
