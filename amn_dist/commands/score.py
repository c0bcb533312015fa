"""Scores of a run: `amn score`."""

from __future__ import annotations

from typing import Annotated

import typer

from amn_dist.commands.options import RunPath
from amn_dist.commands.printing import plain_console
from amn_dist.errors import ConfigError, printable
from amn_dist.storage.paths import AnyPath

ScoreSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="score.key=value, such as score.protocol=coco; other sections stay as they are."),
]


def score(run: RunPath, set: ScoreSettings = None) -> None:
    """Score everything a run has made so far: per-class IoU, mIoU, threshold curves."""
    from amn_dist.runs.pipeline import reopen

    for setting in set or ():
        if not setting.strip().startswith("score."):
            raise ConfigError(f"--set {printable(setting)}: expected a setting of scores, such as score.protocol=coco")
    reopen(run, tuple(set or ())).execute(only="score")
    print_scores(run, classes=True)


def print_scores(folder: AnyPath, *, classes: bool = False) -> None:
    """Print a run's score tables, and what is missing in them. classes: with IoU by class."""
    from amn_dist.report.tables import class_table, protocol_notes, score_table, threshold_table
    from amn_dist.runs.run import read_json

    console = plain_console()
    scores = read_json(folder / "score" / "score.json")
    tables = [score_table(scores, title=str(folder)), threshold_table(scores)]
    tables += [class_table(scores, over) for over in scores["sets"]] if classes else []
    for table in tables:
        if table.row_count:
            console.print(table)
    rows = [row for of_set in scores["sets"].values() for row in of_set["rows"].values()]
    for protocol, note in protocol_notes(rows).items():
        console.print(f"{protocol} protocol: {note}", highlight=False)
    for missing in scores.get("missing", []):
        console.print(f"missing: {printable(missing)}", highlight=False)
