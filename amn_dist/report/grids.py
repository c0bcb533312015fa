"""The report's tables: rows of cells, one run beside the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from amn_dist.report.facts import RunFacts, StageFacts
from amn_dist.report.tables import has_threshold, ordered, percent, protocol_of, short, threshold_figures, title_of

ROLES = ("train", "val")


@dataclass(frozen=True)
class Cell:
    """Text of a table. best: the highest of its row. share: 0..1, shown as a tint."""

    text: str
    best: bool = False
    share: float | None = None


@dataclass(frozen=True)
class Grid:
    """A table. heads: of the columns, the first over the names of the rows. note: what to know beside the caption."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    note: str = ""


def summary_grid(runs: Sequence[RunFacts]) -> Grid:
    """mIoU of every artefact (rows) of every run (columns)."""
    rows = []
    for over, name in ((role, name) for role in ROLES for name in artefacts(runs, role)):
        found = [run.rows(over).get(name) for run in runs]
        protocol = protocol_of(*found)
        # Figures of several protocols are not held against each other.
        compared = len({row.get("protocol", "voc") for row in found if row is not None}) == 1
        values = [row.get("default_miou", row.get("miou")) if row is not None and compared else None for row in found]
        cells = [Cell("" if row is None else short(row).replace(", ", "\n")) for row in found]
        rows.append((f"{title_of(name)} ({over})", (Cell(protocol), *marked(cells, values))))
    return Grid("mIoU in percent", ("artefact (set)", "protocol", *(run.label for run in runs)), tuple(rows))


def artefacts(runs: Sequence[RunFacts], over: str) -> list[str]:
    """What is scored of any of the runs over a set."""
    return ordered(name for run in runs for name in run.rows(over))


def marked(cells: Sequence[Cell], values: Sequence[float | None]) -> tuple[Cell, ...]:
    """The cells, the highest value marked where values differ."""
    rounded = [None if value is None else round(value, 3) for value in values]
    known = [value for value in rounded if value is not None]
    top = max(known) if known and max(known) > min(known) else None
    return tuple(Cell(cell.text, top is not None and value == top) for cell, value in zip(cells, rounded, strict=True))


def threshold_grid(runs: Sequence[RunFacts]) -> Grid:
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
    for over in ROLES:
        for row, label in activations(runs, over):
            if "images" in row:
                first = [f"{percent(row[f'{at}_miou'])} at {row[f'{at}_threshold']:.2f}" for at in ("default", "best")]
                texts = (protocol_of(row), *first, *threshold_figures(row))
                rows.append((f"{label}, {over}", tuple(map(Cell, texts))))
    return Grid("How much hangs on the threshold", (*heads, "cv", "gini", "gap"), tuple(rows))


def activations(runs: Sequence[RunFacts], over: str) -> list[tuple[dict[str, Any], str]]:
    """Scores of activations over a set, and what they are of; equal ones once."""
    found = []
    for name in artefacts(runs, over):
        rows = [(run.rows(over)[name], run.label) for run in runs if name in run.rows(over)]
        for row, labels in distinct([pair for pair in rows if has_threshold(pair[0])]):
            found.append((row, f"{title_of(name)} ({', '.join(labels)})"))
    return found


def time_grid(runs: Sequence[RunFacts]) -> Grid:
    """Seconds and images/s of every stage of every run."""
    names = dict.fromkeys(stage.name for run in runs for stage in run.stages)
    rows = []
    for name in names:
        found = [next((stage for stage in run.stages if stage.name == name), None) for run in runs]
        rows.append((name, tuple(cell for stage in found for cell in time_cells(stage))))
    heads = tuple(head for run in runs for head in (f"{run.label}: s", "images/s"))
    note = "A stage that was taken from another run shows the time it took there."
    return Grid("Time by stage", ("stage", *heads), tuple(rows), note)


def time_cells(stage: StageFacts | None) -> tuple[Cell, Cell]:
    """Seconds and images/s of one stage."""
    if stage is None:
        return Cell(""), Cell("")
    if stage.progress.seconds is None and stage.follows is not None and stage.state == "done":
        return Cell(f"with {stage.follows}"), Cell("")
    seconds = stage.state if stage.progress.seconds is None else f"{stage.progress.seconds:,.0f}"
    rate = stage.progress.images_per_s
    return Cell(seconds), Cell("" if rate is None else f"{rate:,.1f}")


def run_grid(run: RunFacts) -> Grid:
    """The stages of a run with their digests and code."""
    rows = tuple((s.name, (Cell(s.verb), Cell(s.state), Cell(s.digest[:16]), Cell(s.code))) for s in run.stages)
    return Grid("Stages", ("stage", "verb", "state", "digest", "code"), rows)


def distinct(values: Sequence[tuple[Any, str]]) -> list[tuple[Any, list[str]]]:
    """Equal values once, each with the labels it has, in the order of their first."""
    found: list[tuple[Any, list[str]]] = []
    for value, group in groupby(values, key=lambda pair: pair[0]):
        labels = [label for _, label in group]
        known = next((names for other, names in found if other == value), None)
        if known is None:
            found.append((value, labels))
        else:
            known += labels
    return found
