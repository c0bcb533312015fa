"""One self-contained HTML file about some runs. Every string of a run is escaped by the template."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from amn_dist.methods import SETS
from amn_dist.report.charts import STYLES
from amn_dist.report.classes import class_grids, confusion_grids, object_grids
from amn_dist.report.curves import loss_charts, threshold_charts
from amn_dist.report.gallery import galleries
from amn_dist.report.grids import run_grid, summary_grid, threshold_grid, time_grid
from amn_dist.report.run_folder import RunRecord, read_runs
from amn_dist.report.tables import list_notes, percent, protocol_notes
from amn_dist.runs.run import write_text
from amn_dist.storage.paths import AnyPath

PAGE = Path(__file__).parent


def write_report(folders: Sequence[AnyPath], out: Path, *, images: int = 200, data: AnyPath | None = None) -> int:
    """Write the report of some runs. images: most that the gallery shows. data: where their sets lie now.

    Returns the size of the file in bytes.

    Raises ConfigError for a folder that is no run. What else is missing or damaged is named in the report.
    """
    page = render(read_runs(folders, data=data), images=images)
    # A name may hold half a surrogate pair, which no file can.
    write_text(out, page.encode("utf-8", "backslashreplace").decode())
    return out.stat().st_size


def render(runs: Sequence[RunRecord], *, images: int) -> str:
    """The page."""
    templates = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["percent"] = percent
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    return templates.get_template("page.html").render(
        runs=runs,
        protocols=protocol_notes(row for run in runs for over in SETS for row in run.rows(over).values()),
        lists=[(run.label, note) for run in runs for note in list_notes(run.scores)],
        summary=summary_grid(runs),
        threshold_charts=threshold_charts(runs),
        thresholds=threshold_grid(runs),
        objects=object_grids(runs),
        classes=class_grids(runs),
        confusions=confusion_grids(runs),
        losses=loss_charts(runs),
        times=time_grid(runs),
        galleries=galleries(runs, images=images),
        stages={run.label: run_grid(run) for run in runs},
        style=Markup((PAGE / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        styles=STYLES,
    )
