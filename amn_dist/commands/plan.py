"""What is done, what is next, and what it will cost."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from amn_dist.errors import PLACE
from amn_dist.methods import Stage
from amn_dist.report.progress import is_figure, records
from amn_dist.report.tables import plain
from amn_dist.runs.pipeline import Pipeline
from amn_dist.shards.writer import read_reports
from amn_dist.storage.paths import AnyPath
from amn_dist.telemetry import METRICS


def plan_table(line: Pipeline) -> Table:
    """One row a stage: state, what it reads, its work, and its cost as far as this machine has measured it."""
    table = Table(title=plain(f"{line.config.name}: {line.config.method} in {line.run.folder}", PLACE))
    for heading in ("stage", "verb", "state", "reads", "work", "time"):
        table.add_column(heading)
    for stage in line.stages:
        before = ", ".join(stage.depends_on)
        table.add_row(stage.name, stage.verb, progress(line, stage), before, work(line, stage), cost(line, stage))
    return table


def progress(line: Pipeline, stage: Stage) -> str:
    """`done`, `imported`, `open`, or how far a begun Map is."""
    state = line.state(stage)
    if state == "done" and line.run.imported(stage.name):
        return "imported"
    if state != "begun" or stage.verb != "map":
        return state
    total = len(line.sets[stage.over].shard_sizes)
    done = sum(report is not None for report in read_reports(line.run.stage(stage.name), total))
    return f"{done}/{total} shards"


def work(line: Pipeline, stage: Stage) -> str:
    """Steps and images of a Fit, images of a Map."""
    if stage.verb == "score":
        return "all truth"
    images = len(line.sets[stage.over])
    if stage.verb == "map":
        return f"{images} images"
    section = getattr(line.config, stage.name)
    if section.batch > images:
        return f"none: {images} images, a batch of {section.batch}"
    steps = section.steps or section.epochs * (images // section.batch)
    return f"{steps} steps of {section.batch}"


def cost(line: Pipeline, stage: Stage) -> str:
    """Measured seconds of a done stage; for others the rate of the same stage in a sibling run, scaled.

    A stage that follows another runs in its stream, and its time is part of that one's.
    """
    seconds = measured(line.run.stage(stage.name))
    if line.run.is_done(stage) and seconds is not None:
        return f"{seconds:.0f} s"
    if stage.follows is not None:
        return f"with {stage.follows}"
    if line.run.is_done(stage):
        return ""
    rate = next(filter(None, (rated(other.stage(stage.name)) for other in line.run.siblings())), None)
    if rate is None or stage.verb == "score":
        return "not measured yet"
    section = getattr(line.config, stage.name)
    images = len(line.sets[stage.over])
    if stage.verb == "fit":
        images = (section.steps or section.epochs * (images // section.batch)) * section.batch
    return f"about {images / rate:.0f} s (at {rate:.1f} images/s)"


def figures(folder: AnyPath, name: str) -> list[tuple[dict[str, Any], float]]:
    """The records of a stage's metrics that hold a figure, and the figure; damaged lines are left out."""
    found = [record for record in records(folder / METRICS) if record is not None]
    return [(record, float(record[name])) for record in found if is_figure(record.get(name))]


def measured(folder: AnyPath) -> float | None:
    """Seconds the stage took when it ended."""
    ends = [seconds for record, seconds in figures(folder, "seconds") if record.get("done")]
    return ends[-1] if ends else None


def rated(folder: AnyPath) -> float | None:
    """The stage's last rate, images a second."""
    rates = [rate for _, rate in figures(folder, "images_per_s") if rate > 0]
    return rates[-1] if rates else None
