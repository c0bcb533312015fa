"""Scores of a run: `amn score`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from amn_dist.commands.options import MovedData, RunPath
from amn_dist.commands.printing import plain_console, print_line, print_table
from amn_dist.errors import ConfigError, printable
from amn_dist.storage.paths import AnyPath, is_file

ScoreSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="score.key=value, such as score.protocol=coco; other sections stay as they are."),
]


def score(run: RunPath, set: ScoreSettings = None, data: MovedData = None) -> None:
    """Score everything a run has made so far: per-class IoU, mIoU, threshold curves."""
    from amn_dist.runs.pipeline import reopen

    for setting in set or ():
        if not setting.strip().startswith("score."):
            raise ConfigError(f"--set {printable(setting)}: expected a setting of scores, such as score.protocol=coco")
    pipeline = reopen(run, tuple(set or ()), data=data)
    if is_file(run / "score" / "score.json") and not set and not may_write(run):
        print_line(f"note: {printable(run)} is not yours to write; these are the scores it holds", err=True)
    else:
        pipeline.execute(only="score")
    print_scores(run, classes=True)


def may_write(folder: AnyPath) -> bool:
    """Whether this user may write into a folder; of a URL that is seen when it is tried."""
    return not isinstance(folder, Path) or os.access(folder, os.W_OK)


def print_scores(folder: AnyPath, *, classes: bool = False) -> None:
    """Print a run's score tables, and what is missing in them. classes: with IoU by class."""
    from amn_dist.report.tables import class_table, list_notes, protocol_notes, score_table, threshold_table
    from amn_dist.runs.run import read_json

    console = plain_console()
    scores = read_json(folder / "score" / "score.json")
    tables = [score_table(scores, title=str(folder)), threshold_table(scores)]
    tables += [class_table(scores, over) for over in scores["sets"]] if classes else []
    for table in tables:
        if table.row_count:
            print_table(console, table)
    rows = [row for of_set in scores["sets"].values() for row in of_set["rows"].values()]
    for protocol, note in protocol_notes(rows).items():
        console.print(f"{protocol} protocol: {note}", highlight=False)
    for note in list_notes(scores):
        console.print(note, highlight=False)
    for missing in scores.get("missing", []):
        console.print(f"missing: {printable(missing)}", highlight=False)
