"""The report's tables by class: IoU, confusion, activation inside true objects; of very many classes the extremes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amn_dist.methods import SETS, in_order, title_of
from amn_dist.report.grids import Grid, GridCell, activations
from amn_dist.report.run_folder import RunRecord
from amn_dist.report.tables import CLASSES_SHOWN, class_iou, percent, protocol_of, shown_classes

MATRIX_CLASSES = 25
"""Classes up to which a confusion is shown whole."""
CONFUSIONS = 50
"""Confusions listed where it is not."""


def object_grids(runs: Sequence[RunRecord]) -> list[Grid]:
    """Unevenness and contrast by class, one table an activation."""
    grids = []
    for over in SETS:
        for row, label in activations(runs, over):
            objects = row.get("objects", {}).get("classes", [])
            classes = next(run.classes for run in runs if row in run.rows(over).values())
            shown = shown_classes(
                [None if figures is None or figures["gini"] is None else figures["gini"]["mean"] for figures in objects]
            )
            rows = tuple(
                (classes[i], tuple(map(GridCell, object_texts(objects[i])))) for i in shown if objects[i] is not None
            )
            if rows:
                heads = ("class", "objects", "silent", *(f"{m}: mean (quartiles)" for m in ("cv", "gini", "gap")))
                note = extremes(len(objects), len(shown), "gini")
                grids.append(Grid(f"Inside true objects: {label}, {over}", heads, rows, note))
    return grids


def object_texts(objects: Mapping[str, Any]) -> tuple[str, ...]:
    """Counts of the objects of a class, then mean and quartiles of their cv, gini and gap."""
    figures = [objects[name] for name in ("cv", "gini", "gap")]
    texts = [
        "" if figure is None else f"{figure['mean']:.2f} ({' '.join(f'{q:.2f}' for q in figure['quartiles'])})"
        for figure in figures
    ]
    return str(objects["count"]), str(objects["silent"]), *texts


def class_grids(runs: Sequence[RunRecord]) -> list[Grid]:
    """IoU by class, one table a run and set."""
    grids = []
    for run, over in ((run, over) for run in runs for over in SETS):
        scores = run.rows(over)
        columns = {name: class_iou(scores[name]) for name in in_order(scores)}
        if not columns:
            continue
        shown = shown_classes(list(columns.values())[-1])
        rows = tuple(
            (run.classes[i], tuple(GridCell(percent(values[i]), share=values[i]) for values in columns.values()))
            for i in shown
        )
        heads = ("class", *map(title_of, columns))
        note = extremes(len(run.classes), len(shown), f"IoU of the {title_of([*columns][-1])}")
        protocol = protocol_of(*scores.values())
        grids.append(Grid(f"IoU by class in percent ({over}, {protocol} protocol), {run.label}", heads, rows, note))
    return grids


def extremes(total: int, shown: int, figure: str) -> str:
    """What is said where not all classes are shown."""
    return "" if total == shown else f"{shown} of {total} classes: the {CLASSES_SHOWN} lowest and highest by {figure}."


def confusion_grids(runs: Sequence[RunRecord]) -> list[Grid]:
    """What the pixels of every true class became in the last labels over a set, in percent."""
    grids = []
    for run, over in ((run, over) for run in runs for over in SETS):
        scores = run.rows(over)
        name = next((name for name in reversed(in_order(scores)) if scores[name].get("confusion")), None)
        if name is not None:
            title = f"{title_of(name)} ({over}), {run.label}"
            counts = scores[name]["confusion"]
            grids.append(
                matrix(run.classes, counts, title) if len(counts) <= MATRIX_CLASSES else largest(run, counts, title)
            )
    return grids


def matrix(classes: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> Grid:
    """A whole confusion: rows truth, columns prediction."""
    rows = []
    for label, row in zip(classes, counts, strict=True):
        total = sum(row)
        shares = [value / total if total else None for value in row]
        rows.append((label, tuple(GridCell("" if s is None else f"{100 * s:.0f}", share=s) for s in shares)))
    return Grid(
        f"Confusion, {title}",
        ("true \\ predicted", *classes),
        tuple(rows),
        "Percent of the pixels of each true class, of the last labels; score.json has those of all.",
    )


def largest(run: RunRecord, counts: Sequence[Sequence[int]], title: str) -> Grid:
    """The largest confusions of many classes."""
    wrong = [(value, t, p) for t, row in enumerate(counts) for p, value in enumerate(row) if value and t != p]
    rows = tuple(
        (
            f"{run.classes[t]} as {run.classes[p]}",
            (GridCell(f"{100 * value / sum(counts[t]):.1f}"), GridCell(f"{value:,}")),
        )
        for value, t, p in sorted(wrong, reverse=True)[:CONFUSIONS]
    )
    note = f"The {len(rows)} largest of {len(wrong)} confusions of {len(counts)} classes; score.json has all labels."
    return Grid(f"Confusion, {title}", ("truth as prediction", "% of the true class", "pixels"), rows, note)
