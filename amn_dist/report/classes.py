"""The report's tables by class: IoU, confusion, activation inside true objects; of very many classes the extremes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amn_dist.report.facts import RunFacts
from amn_dist.report.grids import ROLES, Cell, Grid, activations
from amn_dist.report.tables import (
    CLASSES_SHOWN,
    class_iou,
    ordered,
    percent,
    protocol_of,
    shown_classes,
    title_of,
)

MATRIX_CLASSES = 25
"""Classes up to which a confusion is shown whole."""
CONFUSIONS = 50
"""Confusions listed where it is not."""


def object_grids(runs: Sequence[RunFacts]) -> list[Grid]:
    """Unevenness and contrast by class, one table an activation."""
    grids = []
    for over in ROLES:
        for row, label in activations(runs, over):
            found = row.get("objects", {}).get("classes", [])
            classes = next(run.classes for run in runs if row in run.rows(over).values())
            shown = shown_classes(
                [None if one is None or one["gini"] is None else one["gini"]["mean"] for one in found]
            )
            rows = tuple((classes[i], tuple(map(Cell, object_texts(found[i])))) for i in shown if found[i] is not None)
            if rows:
                heads = ("class", "objects", "silent", *(f"{m}: mean (quartiles)" for m in ("cv", "gini", "gap")))
                note = extremes(len(found), len(shown), "gini")
                grids.append(Grid(f"Inside true objects: {label}, {over}", heads, rows, note))
    return grids


def object_texts(one: Mapping[str, Any]) -> tuple[str, ...]:
    """Counts, then mean and quartiles of cv, gini and gap."""
    texts = [
        "" if one[m] is None else f"{one[m]['mean']:.2f} ({' '.join(f'{q:.2f}' for q in one[m]['quartiles'])})"
        for m in ("cv", "gini", "gap")
    ]
    return str(one["count"]), str(one["silent"]), *texts


def class_grids(runs: Sequence[RunFacts]) -> list[Grid]:
    """IoU by class, one table a run and set."""
    grids = []
    for run, over in ((run, over) for run in runs for over in ROLES):
        found = run.rows(over)
        columns = {name: class_iou(found[name]) for name in ordered(found)}
        if not columns:
            continue
        shown = shown_classes(list(columns.values())[-1])
        rows = tuple(
            (run.classes[i], tuple(Cell(percent(values[i]), share=values[i]) for values in columns.values()))
            for i in shown
        )
        heads = ("class", *map(title_of, columns))
        note = extremes(len(run.classes), len(shown), f"IoU of the {title_of([*columns][-1])}")
        protocol = protocol_of(*found.values())
        grids.append(Grid(f"IoU by class in percent ({over}, {protocol} protocol), {run.label}", heads, rows, note))
    return grids


def extremes(known: int, shown: int, figure: str) -> str:
    """What is said where not all classes are shown."""
    return "" if known == shown else f"{shown} of {known} classes: the {CLASSES_SHOWN} lowest and highest by {figure}."


def confusion_grids(runs: Sequence[RunFacts]) -> list[Grid]:
    """What the pixels of every true class became in the last labels over a set, in percent."""
    grids = []
    for run, over in ((run, over) for run in runs for over in ROLES):
        found = run.rows(over)
        name = next((name for name in reversed(ordered(found)) if found[name].get("confusion")), None)
        if name is not None:
            title = f"{title_of(name)} ({over}), {run.label}"
            counts = found[name]["confusion"]
            grids.append(
                matrix(run.classes, counts, title) if len(counts) <= MATRIX_CLASSES else pairs(run, counts, title)
            )
    return grids


def matrix(classes: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> Grid:
    """A whole confusion: rows truth, columns prediction."""
    rows = []
    for label, row in zip(classes, counts, strict=True):
        total = sum(row)
        shares = [value / total if total else None for value in row]
        rows.append((label, tuple(Cell("" if s is None else f"{100 * s:.0f}", share=s) for s in shares)))
    return Grid(
        f"Confusion, {title}",
        ("true \\ predicted", *classes),
        tuple(rows),
        "Percent of the pixels of each true class, of the last labels; score.json has those of all.",
    )


def pairs(run: RunFacts, counts: Sequence[Sequence[int]], title: str) -> Grid:
    """The largest confusions of many classes."""
    wrong = [(value, t, p) for t, row in enumerate(counts) for p, value in enumerate(row) if value and t != p]
    rows = tuple(
        (f"{run.classes[t]} as {run.classes[p]}", (Cell(f"{100 * value / sum(counts[t]):.1f}"), Cell(f"{value:,}")))
        for value, t, p in sorted(wrong, reverse=True)[:CONFUSIONS]
    )
    note = f"The {len(rows)} largest of {len(wrong)} confusions of {len(counts)} classes; score.json has all labels."
    return Grid(f"Confusion, {title}", ("truth as prediction", "% of the true class", "pixels"), rows, note)
