"""What is done, what is next, and what it will cost: `amn plan`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from amn_dist.commands.options import Address, ConfigPath, DataOption, RunOption, Settings
from amn_dist.commands.printing import plain_console, print_table
from amn_dist.commands.run import pipeline
from amn_dist.errors import PLACE, AmnError
from amn_dist.storage.paths import AnyPath

if TYPE_CHECKING:  # annotations alone: `amn --help` does not wait for torch
    from amn_dist.methods import Stage
    from amn_dist.runs.pipeline import Pipeline


def plan(
    config: ConfigPath,
    data: DataOption = Path("."),
    run: RunOption = None,
    set: Settings = None,
    address: Address = None,
) -> None:
    """Say what is done and what is next, with an estimate of its cost; refuse what could not run."""
    planned = pipeline(config, data, run, set, address=address)
    print_table(plain_console(), plan_table(planned))
    planned.check(planned.stages)


def plan_table(pipeline: Pipeline) -> Table:
    """One row a stage: state, what it reads, its work, and its cost as far as this machine has measured it."""
    from amn_dist.report.tables import plain

    config = pipeline.config
    table = Table(title=plain(f"{config.name}: {config.method} in {pipeline.run.folder}", PLACE))
    for heading in ("stage", "verb", "state", "reads", "work", "time"):
        table.add_column(heading)
    for stage in pipeline.stages:
        reads = ", ".join(stage.depends_on)
        table.add_row(
            stage.name, stage.verb, progress(pipeline, stage), reads, work(pipeline, stage), cost(pipeline, stage)
        )
    return table


def progress(pipeline: Pipeline, stage: Stage) -> str:
    """`done`, `imported`, `open`, or how far a begun Map is."""
    from amn_dist.shards.writer import read_reports

    state = pipeline.state(stage)
    if state == "done" and pipeline.run.imported(stage.name):
        return "imported"
    if state != "begun" or stage.verb != "map":
        return state
    total = len(pipeline.sets[stage.over].shard_sizes)
    done = sum(report is not None for report in read_reports(pipeline.run.stage(stage.name), total))
    return f"{done}/{total} shards"


def work(pipeline: Pipeline, stage: Stage) -> str:
    """Steps and images of a Fit, images of a Map."""
    if stage.verb == "score":
        return "all truth"
    images = len(pipeline.sets[stage.over])
    if stage.verb == "map":
        return f"{images} images"
    section = getattr(pipeline.config, stage.name)
    if section.batch > images:
        return f"none: {images} images, a batch of {section.batch}"
    return f"{steps(section, images)} steps of {section.batch}"


def steps(section: Any, images: int) -> int:
    """Optimiser steps of a Fit over so many images."""
    return int(section.steps or section.epochs * (images // section.batch))


def cost(pipeline: Pipeline, stage: Stage) -> str:
    """Measured seconds of a done stage; for others the rate of the same stage in a sibling run, scaled.

    A stage that follows another runs in its stream, and its time is part of that one's.
    """
    seconds = measured(pipeline.run.stage(stage.name))
    if pipeline.run.is_done(stage) and seconds is not None:
        return f"{seconds:.0f} s"
    if stage.follows is not None:
        return f"with {stage.follows}"
    if pipeline.run.is_done(stage):
        return ""
    rate = next(filter(None, (rated_beside(sibling.stage(stage.name)) for sibling in pipeline.run.siblings())), None)
    if rate is None or stage.verb == "score":
        return "not measured yet"
    images = len(pipeline.sets[stage.over])
    if stage.verb == "fit":
        section = getattr(pipeline.config, stage.name)
        images = steps(section, images) * section.batch
    return f"about {images / rate:.0f} s (at {rate:.1f} images/s)"


def figures(folder: AnyPath, name: str) -> list[tuple[dict[str, Any], float]]:
    """The records of a stage's metrics that hold a figure, and the figure; damaged lines are left out."""
    from amn_dist.report.stage_metrics import is_figure, read_records
    from amn_dist.telemetry import METRICS

    records = [record for record in read_records(folder / METRICS) if record is not None]
    return [(record, float(record[name])) for record in records if is_figure(record.get(name))]


def measured(folder: AnyPath) -> float | None:
    """Seconds the stage took when it ended."""
    ends = [seconds for record, seconds in figures(folder, "seconds") if record.get("done")]
    return ends[-1] if ends else None


def rated_beside(folder: AnyPath) -> float | None:
    """As rated, of another run: None where that cannot be read."""
    with contextlib.suppress(AmnError, OSError):
        return rated(folder)
    return None


def rated(folder: AnyPath) -> float | None:
    """The stage's last rate, images a second."""
    rates = [rate for _, rate in figures(folder, "images_per_s") if rate > 0]
    return rates[-1] if rates else None
