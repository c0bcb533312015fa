"""Scores as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

NAMES = {
    "cam": "CAM",
    "cam_seed": "CAM seed",
    "icd_map": "ICD",
    "icd_seed": "ICD seed",
    "refine": "maps given",
    "refine_seed": "their seed",
    "amn_map": "AMN",
    "amn_seed": "AMN seed",
    "walk": "pseudo-mask",
    "predict_raw": "prediction",
    "predict": "prediction + CRF",
}


def score_table(scores: Mapping[str, Any], *, title: str = "") -> Table:
    """One row an artefact: mIoU at the default and at the best threshold, or of its labels."""
    table = Table(title=title or None)
    for heading in ("set", "artefact", "mIoU", "best", "at", "within 2 points", "decided"):
        table.add_column(heading, justify="left" if heading in ("set", "artefact") else "right")
    for over, found in scores["sets"].items():
        for name in ordered(found["rows"]):
            table.add_row(over, NAMES[name], *figures(found["rows"][name]))
    return table


def ordered(rows: Mapping[str, Any]) -> list[str]:
    """Artefacts of a score in the order they are made."""
    return [name for name in NAMES if name in rows]


def figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The figures of a row as text, percent with one decimal."""
    if "best_miou" not in row:
        return percent(row["miou"]), "", "", "", percent(row["decided"])
    default = f"{percent(row['default_miou'])} at {row['default_threshold']:.2f}"
    return default, percent(row["best_miou"]), f"{row['best_threshold']:.2f}", f"{row['width_2']:.2f}", ""


def class_table(scores: Mapping[str, Any], over: str) -> Table:
    """IoU of every class (rows) for every artefact (columns) of one set."""
    found = scores["sets"][over]["rows"]
    rows = {name: found[name] for name in ordered(found)}
    table = Table(title=f"IoU by class, {over}")
    table.add_column("class")
    for name in rows:
        table.add_column(NAMES[name], justify="right")
    for index, label in enumerate(scores["classes"]):
        cells = [class_iou(row)[index] for row in rows.values()]
        table.add_row(label, *("-" if cell is None else percent(cell) for cell in cells))
    return table


def class_iou(row: Mapping[str, Any]) -> list[float | None]:
    """IoU by class of labels, or of an activation at its default threshold."""
    if "best_miou" not in row:
        return list(row["iou"])
    return list(row["iou"][row["thresholds"].index(row["default_threshold"])])


def comparison(runs: Mapping[str, Mapping[str, Any]]) -> Table:
    """Runs side by side: one column a run, one row an artefact."""
    table = Table(title="mIoU")
    table.add_column("artefact")
    for name in runs:
        table.add_column(name, justify="right")
    for over in ("train", "val"):
        for artefact in NAMES:
            rows = [scores["sets"].get(over, {"rows": {}})["rows"].get(artefact) for scores in runs.values()]
            if any(row is not None for row in rows):
                table.add_row(f"{NAMES[artefact]} ({over})", *("-" if row is None else short(row) for row in rows))
    return table


def short(row: Mapping[str, Any]) -> str:
    """One cell: mIoU, for activations at the default and at the best threshold."""
    if "best_miou" not in row:
        return percent(row["miou"])
    return (
        f"{percent(row['default_miou'])} at {row['default_threshold']:.2f}, "
        f"best {percent(row['best_miou'])} at {row['best_threshold']:.2f}"
    )


def percent(value: float) -> str:
    return f"{100 * value:.1f}"
