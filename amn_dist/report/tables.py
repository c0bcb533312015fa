"""Scores as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from amn_dist.errors import PLACE, printable
from amn_dist.methods import in_order, title_of

PROTOCOLS = {
    "voc": ("VOC", "pixels without truth are left out, undecided ones are background; absent classes do not count"),
    "coco": ("COCO", "as VOC, but pixels without truth are one more class, of IoU 0 (AMN's evaluation on COCO)"),
    "deeplab": ("DeepLab", "as VOC, but only classes of the truth count (deeplab-pytorch)"),
    "icd": ("ICD", "pixels undecided in truth or labels are left out, absent classes count as 0 (ICD's seeds)"),
}
"""What tables call a protocol, and say of it (amn 1.6)."""

LEADING = ("set", "artefact", "protocol")
"""Columns that say what the figures of a row are of."""

CLASSES_SHOWN = 50
"""Classes listed at either end where there are more than twice as many."""


def score_table(scores: Mapping[str, Any], *, title: str = "") -> Table:
    """One row an artefact: mIoU at the default and at the best threshold; or of its labels, with their boundary IoU."""
    table = Table(title=plain(title, PLACE) if title else None)
    for heading in (*LEADING, "mIoU", "best", "at", "within 2 points", "decided", "boundary"):
        table.add_column(heading, justify="left" if heading in LEADING else "right")
    for over, name, row in listed(scores):
        table.add_row(*leading(over, name, row), *figures(row))
    return table


def threshold_table(scores: Mapping[str, Any]) -> Table:
    """One row an activation: how much hangs on the threshold; see docs/thresholds.md."""
    table = Table(title="thresholds")
    headings = ("mean", "within 1, 2 points", "own best: quartiles", "near", "oracle", "cv", "gini", "gap")
    for heading in (*LEADING, *headings):
        table.add_column(heading, justify="left" if heading in LEADING else "right")
    for over, name, row in listed(scores):
        if "images" in row:
            table.add_row(*leading(over, name, row), *threshold_figures(row))
    return table


def listed(scores: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Set, artefact and row of everything that is scored, in order."""
    for over, of_set in scores["sets"].items():
        for name in in_order(of_set["rows"]):
            yield over, name, of_set["rows"][name]


def leading(over: str, name: str, row: Mapping[str, Any]) -> tuple[Text, ...]:
    """The first cells of a row."""
    return plain(over), plain(title_of(name)), plain(protocol_of(row))


def threshold_figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The threshold analysis of an activation as text: mIoU in percent, widths and thresholds on [0, 1]."""
    images, objects = row["images"], row["objects"]
    own = images["own_quartiles"]
    means = [None if objects[name] is None else objects[name]["mean"] for name in ("cv", "gini", "gap")]
    return (
        percent(row["mean_miou"]),
        f"{row['width_1']:.2f}, {row['width_2']:.2f}",
        "-" if own is None else " ".join(f"{value:.2f}" for value in own),
        percent(images["near"]),
        percent(images["oracle_miou"]),
        *("-" if mean is None else f"{mean:.2f}" for mean in means),
    )


def has_threshold(row: Mapping[str, Any]) -> bool:
    """Whether scores are those of an activation, which becomes labels by a threshold."""
    return "best_miou" in row


def protocol_of(*rows: Mapping[str, Any] | None) -> str:
    """The protocol of some scores, several where they differ; scores of older versions follow VOC's."""
    names = dict.fromkeys(str(row.get("protocol", "voc")) for row in rows if row is not None)
    return " / ".join(PROTOCOLS[name][0] if name in PROTOCOLS else printable(name) for name in names)


def protocol_notes(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What is to be said of the protocols of some scores, by title."""
    used = {row.get("protocol", "voc") for row in rows}
    return {title: note for name, (title, note) in PROTOCOLS.items() if name in used}


def list_notes(scores: Mapping[str, Any]) -> list[str]:
    """Which sets of score.json are scored on some of their images, in words."""
    return [
        f"{printable(over)}: scored on {printable(of_set.get('images'))} images, those of {printable(of_set['list'])}"
        for over, of_set in scores.get("sets", {}).items()
        if "list" in of_set
    ]


def readable(scores: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Scores without the artefacts that no table has a form for, and what is said of those."""
    sets: dict[str, Any] = {}
    left_out: list[str] = []
    for over, of_set in scores["sets"].items():
        rows = of_set.get("rows") if isinstance(of_set, dict) else None
        if not isinstance(rows, dict):
            left_out.append(f"score: the scores of set {printable(over)} are damaged; `amn score` makes them again")
            continue
        sound = {name: row for name, row in rows.items() if isinstance(row, dict) and {"miou", "iou"} <= row.keys()}
        left_out += [
            f"score: {printable(name)} ({printable(over)}) has scores of a form that no table here has"
            for name in rows.keys() - sound.keys()
        ]
        sets[over] = {**of_set, "rows": sound}
    return {**scores, "sets": sets}, left_out


def figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The figures of a row as text, percent with one decimal."""
    if not has_threshold(row):
        return percent(row["miou"]), "", "", "", percent(row["decided"]), percent(row.get("boundary_miou"))
    default = f"{percent(row['default_miou'])} at {row['default_threshold']:.2f}"
    return default, percent(row["best_miou"]), f"{row['best_threshold']:.2f}", f"{row['width_2']:.2f}", "", ""


def class_table(scores: Mapping[str, Any], over: str) -> Table:
    """IoU of every class (rows) for every artefact (columns) of one set; of very many, the worst and the best."""
    rows = scores["sets"][over]["rows"]
    columns = {name: class_iou(rows[name]) for name in in_order(rows)}
    shown = shown_classes(list(columns.values())[-1])
    note = (
        ""
        if len(shown) == len(scores["classes"])
        else f", the {CLASSES_SHOWN} worst and best by {title_of([*columns][-1])}"
    )
    table = Table(title=plain(f"IoU by class, {over}, {protocol_of(*rows.values())} protocol{note}", PLACE))
    table.add_column("class")
    for name in columns:
        table.add_column(plain(title_of(name)), justify="right")
    for index in shown:
        table.add_row(plain(scores["classes"][index]), *(percent(values[index]) for values in columns.values()))
    return table


def shown_classes(values: Sequence[float | None]) -> list[int]:
    """All classes, or the worst and best by IoU where there are very many; in the order of their ids."""
    if len(values) <= 2 * CLASSES_SHOWN:
        return list(range(len(values)))
    ranked = sorted(
        (index for index, value in enumerate(values) if value is not None), key=lambda index: values[index] or 0
    )
    return sorted({*ranked[:CLASSES_SHOWN], *ranked[-CLASSES_SHOWN:]})


def class_iou(row: Mapping[str, Any]) -> list[float | None]:
    """IoU by class of labels, or of an activation at its default threshold."""
    if not has_threshold(row):
        return list(row["iou"])
    return list(row["iou"][row["thresholds"].index(row["default_threshold"])])


def comparison(runs: Mapping[str, Mapping[str, Any]]) -> Table:
    """Runs side by side: one column a run, one row an artefact."""
    table = Table(title="mIoU")
    table.add_column("artefact")
    table.add_column("protocol")
    for name in runs:
        table.add_column(name, justify="right")
    for over in dict.fromkeys(over for scores in runs.values() for over in scores["sets"]):
        by_run = [scores["sets"].get(over, {"rows": {}})["rows"] for scores in runs.values()]
        for artefact in in_order(name for rows in by_run for name in rows):
            cells = ["-" if artefact not in rows else short(rows[artefact]) for rows in by_run]
            protocol = protocol_of(*(rows.get(artefact) for rows in by_run))
            table.add_row(plain(f"{title_of(artefact)} ({over})"), plain(protocol), *cells)
    return table


def short(row: Mapping[str, Any]) -> str:
    """One cell: mIoU, for activations at the default and at the best threshold, for labels with their boundary IoU."""
    if not has_threshold(row):
        boundary = row.get("boundary_miou")
        return percent(row["miou"]) + ("" if boundary is None else f", boundary {percent(boundary)}")
    return (
        f"{percent(row['default_miou'])} at {row['default_threshold']:.2f}, "
        f"best {percent(row['best_miou'])} at {row['best_threshold']:.2f}"
    )


def plain(text: str, limit: int = 200) -> Text:
    """A text of a run for a table: brackets in it are no markup."""
    return Text(printable(text, limit))


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
