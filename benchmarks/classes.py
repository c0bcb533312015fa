"""What do runs score class by class, on some of the classes alone, and is one map above another at every threshold?

For sets in which a few classes have all of their images: figures over these may be read beside published ones, means
over all classes may not. Reads score.json of finished runs; runs whose configurations differ in their seed alone stand
in one group (seeds.py).

    python -m benchmarks.classes RUN... --classes cat,cow,dog [--beside person,background] [--join RESULT] [--out NAME]

--join takes the runs of an earlier result in, such as were made on another machine and are there no more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amn_dist.methods import in_order, title_of
from benchmarks.harness import write_result
from benchmarks.seeds import cell, grouped, told

WIDTHS = (0.01, 0.02)
"""Loss of the mean IoU within which a threshold counts to the plateau."""
FROM, TO = 0.15, 0.6
"""Thresholds between which two maps are compared."""
AT_DEFAULT = 0.25
SINGLE = {
    "own_mean": "an image's own threshold",
    "near": "images near the set's",
    "miou_default": f"mean over images at {AT_DEFAULT}",
    "miou_best": "at the set's best",
    "miou_own": "at each one's own",
}
"""Figures of score.json about single images of a map (docs/thresholds.md), over all of their classes."""


@dataclass(frozen=True)
class ClassScores:
    """One artefact of one run, as shares. iou: f64[C]. curve: f64[T, C] of maps, else None. thresholds: f64[T].
    images: figures about single images by name, of maps."""

    classes: tuple[str, ...]
    iou: np.ndarray
    curve: np.ndarray | None
    thresholds: np.ndarray
    images: Mapping[str, float]

    def mean(self, chosen: Sequence[str]) -> np.ndarray:
        """f64[T], the mean IoU of some classes at every threshold."""
        if self.curve is None:
            raise ValueError("found labels, expected maps: labels have no thresholds")
        return np.asarray(self.curve[:, [self.classes.index(name) for name in chosen]].mean(1))

    def figures(self, chosen: Sequence[str], beside: Sequence[str]) -> dict[str, float]:
        """IoU of each class, of maps at the default threshold; the mean of the chosen, and what thresholds do to it."""
        of_class = {name: float(self.iou[self.classes.index(name)]) for name in (*chosen, *beside)}
        of_class["mean"] = float(np.mean([of_class[name] for name in chosen]))
        if self.curve is None:
            return of_class
        curve = self.mean(chosen)
        best = int(curve.argmax())
        plateaus = {f"width_{100 * loss:.0f}": plateau(curve, loss) for loss in WIDTHS}
        of_best = {"best_mean": float(curve[best]), "best_threshold": float(self.thresholds[best])}
        return of_class | of_best | plateaus | dict(self.images)


def plateau(curve: np.ndarray, loss: float) -> float:
    """How far the threshold can move, as a length on [0, 1], within this loss of the best: as score.json has it."""
    return round(float((curve >= curve.max() - loss).sum()) / (len(curve) + 1), 2)


def above(one: ClassScores, other: ClassScores, chosen: Sequence[str]) -> dict[str, Any]:
    """By how much the mean of one lies over another's: the least and the most between two thresholds, and where it
    does not."""
    between = (one.thresholds >= FROM - 1e-6) & (one.thresholds <= TO + 1e-6)
    difference = (one.mean(chosen) - other.mean(chosen))[between]
    below = one.thresholds[between][difference <= 0]
    return {"least": float(difference.min()), "most": float(difference.max()), "not_above_at": below.tolist()}


def read_scores(run: Path, chosen: Sequence[str] = ()) -> dict[str, ClassScores]:
    """Artefacts of a finished run by set and name, in the order of stages.

    Raises ValueError without scores, and without one of the chosen classes.
    """
    path = run / "score" / "score.json"
    scores = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(scores.get("sets"), dict):
        raise ValueError(f"{path}: found no scores, expected `sets`; `amn score` makes it")
    classes = tuple(scores["classes"])
    if unknown := [name for name in chosen if name not in classes]:
        raise ValueError(f"{path}: found no class {unknown[0]!r}, expected one of {', '.join(classes)}")
    return {
        f"{over} {name}": of_row(of_set["rows"][name], classes)
        for over, of_set in scores["sets"].items()
        for name in in_order(of_set["rows"])
    }


def of_row(row: Mapping[str, Any], classes: tuple[str, ...]) -> ClassScores:
    """A row of score.json; classes that are nowhere have no IoU there and NaN here."""
    values = np.array(row["iou"], np.float64)
    if values.ndim == 1:
        return ClassScores(classes, values, None, np.empty(0), {})
    thresholds = np.array(row["thresholds"], np.float64)
    images = {name: row["images"][name] for name in SINGLE}
    return ClassScores(classes, values[np.abs(thresholds - AT_DEFAULT).argmin()], values, thresholds, images)


def summary(runs: Mapping[int, Path], chosen: Sequence[str], beside: Sequence[str]) -> dict[str, Any]:
    """Of the runs of a group, by seed: every artefact's figures with their spread, and every map against the first."""
    tables = [read_scores(run, (*chosen, *beside)) for run in runs.values()]
    rows = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        figures = [table[name].figures(chosen, beside) for table in tables if name in table]
        rows[name] = {figure: told([of_run[figure] for of_run in figures]) for figure in figures[0]}
    above_first = [_above_first(table, chosen) for table in tables]
    return {"n": len(runs), "seeds": list(runs), "rows": rows, "above_the_first_map": above_first}


def joined(groups: Mapping[str, Any], earlier: Path, chosen: Sequence[str]) -> dict[str, Any]:
    """Groups with the runs of an earlier result of this module before their own; groups of its own stay as they are.

    Raises ValueError for a result over other classes, and for a seed that stands in both.
    """
    found = json.loads(earlier.read_text(encoding="utf-8"))
    if found.get("classes") != list(chosen):
        raise ValueError(f"{earlier}: found classes {found.get('classes')}, expected {list(chosen)}")
    together = dict(found["groups"]) | dict(groups)
    for name in groups.keys() & found["groups"].keys():
        first, second = found["groups"][name], groups[name]
        if twice := set(first["seeds"]) & set(second["seeds"]):
            raise ValueError(f"{earlier}: found seed {min(twice)} of {name}, expected runs of other seeds than given")
        together[name] = {
            "n": first["n"] + second["n"],
            "seeds": first["seeds"] + second["seeds"],
            "rows": _joined_rows(first["rows"], second["rows"]),
            "above_the_first_map": first["above_the_first_map"] + second["above_the_first_map"],
        }
    return together


def _joined_rows(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure of every artefact that any of the tables has, over all runs that have it."""
    found: dict[str, dict[str, list[float]]] = {}
    for table in tables:
        for name, row in table.items():
            for figure, of_runs in row.items():
                found.setdefault(name, {}).setdefault(figure, []).extend(of_runs["values"])
    return {name: {figure: told(values) for figure, values in row.items()} for name, row in found.items()}


def _above_first(table: Mapping[str, ClassScores], chosen: Sequence[str]) -> dict[str, Any]:
    maps = [name for name, scores in table.items() if scores.curve is not None]
    return {name: above(table[name], table[maps[0]], chosen) for name in maps[1:]}


def markdown(group: str, found: Mapping[str, Any], chosen: Sequence[str], beside: Sequence[str]) -> str:
    """Tables: IoU by class in percent, of maps at the default threshold; what thresholds do to maps and to images."""
    count = found["n"]
    heads = ("", *chosen, "mean", *beside)
    lines = [f"{group}, n = {count}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in found["rows"].items():
        cells = [cell("iou", row[head], count) for head in heads[1:]]
        lines.append(f"| {_title(name)} | {' | '.join(cells)} |")
    maps = {name: row for name, row in found["rows"].items() if "best_mean" in row}
    pooled = {
        "mean": f"mean at {AT_DEFAULT}",
        "best_mean": "best",
        "best_threshold": "at",
        "width_1": "within 1 point",
        "width_2": "within 2 points",
    }
    for figures in (pooled, SINGLE):
        lines += ["", f"| | {' | '.join(figures.values())} |", "|---" * (1 + len(figures)) + "|"]
        for name, row in maps.items():
            lines.append(f"| {_title(name)} | {' | '.join(cell(figure, row[figure], count) for figure in figures)} |")
    for differences in found["above_the_first_map"]:
        for name, told_of in differences.items():
            where = told_of["not_above_at"]
            least, most = 100 * told_of["least"], 100 * told_of["most"]
            said = f"not at {where[0]:.2f} to {where[-1]:.2f}" if where else "at every threshold"
            lines += ["", f"{_title(name)} over the first map, {FROM} to {TO}: {least:+.1f} to {most:+.1f}, {said}"]
    return "\n".join(lines)


def _title(name: str) -> str:
    over, artefact = name.split(" ", 1)
    return f"{title_of(artefact)} ({over})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--classes", required=True, help="classes of the mean, with commas")
    parser.add_argument("--beside", default="background", help="classes told beside them")
    parser.add_argument("--join", type=Path, help="an earlier result, whose runs count too")
    parser.add_argument("--out", default="classes", help="name of the result")
    asked = parser.parse_args()
    chosen, beside = asked.classes.split(","), asked.beside.split(",")
    try:
        found = {name: summary(runs, chosen, beside) for name, runs in grouped(asked.runs).items()}
        if asked.join:
            found = joined(found, asked.join, chosen)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    write_result(asked.out, {"classes": chosen, "groups": found})
    for name, of_group in found.items():
        print(f"\n{markdown(name, of_group, chosen, beside)}")


if __name__ == "__main__":
    main()
