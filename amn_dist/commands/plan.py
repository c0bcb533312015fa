"""What is done, what is next, and what it will cost: `amn plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from amn_dist.commands.options import Address, ConfigPath, DataOption, RunOption, Settings
from amn_dist.commands.printing import plain_console, print_line, print_table
from amn_dist.commands.run import pipeline
from amn_dist.errors import PLACE, AmnError

if TYPE_CHECKING:  # annotations alone: `amn --help` does not wait for torch
    from amn_dist.commands.estimates.estimate import Estimates
    from amn_dist.methods import Stage
    from amn_dist.runs.pipeline import Pipeline


Measure = Annotated[
    bool, typer.Option("--measure/--no-measure", help="Try a few images where no equal run beside this one was timed.")
]
MINUTES, HOURS, DAYS = 90, 3 * 3_600, 3 * 86_400
"""Seconds from which a time is told in the next larger unit."""


def plan(
    config: ConfigPath,
    data: DataOption = Path("."),
    run: RunOption = None,
    set: Settings = None,
    address: Address = None,
    measure: Measure = True,
) -> None:
    """Say what is done and what is next, with an estimate of its cost; refuse what could not run."""
    from functools import partial

    from amn_dist.commands.estimates.estimate import estimated

    planned = pipeline(config, data, run, set, address=address)
    fault = fault_of(planned)
    measuring = measure and address is None and fault is None  # of another cluster this machine tells nothing
    estimates = estimated(planned, measuring=measuring, tell=partial(print_line, err=True))
    print_table(plain_console(), plan_table(planned, estimates))
    for line in remarks(estimates):
        print_line(line)
    if fault is not None:
        raise fault


def fault_of(pipeline: Pipeline) -> AmnError | None:
    """What of the run cannot be, as far as it can be known."""
    try:
        pipeline.check(pipeline.stages)
    except AmnError as error:
        return error
    return None


def plan_table(pipeline: Pipeline, estimates: Estimates) -> Table:
    """One row a stage: state, what it reads, its work, and its cost as far as it is known."""
    from amn_dist.report.tables import plain

    config = pipeline.config
    table = Table(title=plain(f"{config.name}: {config.method} in {pipeline.run.folder}", PLACE))
    for heading in ("stage", "verb", "state", "reads", "work", "time"):
        table.add_column(heading)
    for stage in pipeline.stages:
        reads = ", ".join(stage.depends_on)
        doing, time = work(pipeline, stage), cost(pipeline, stage, estimates)
        table.add_row(stage.name, stage.verb, progress(pipeline, stage), reads, doing, time)
    return table


def remarks(estimates: Estimates) -> list[str]:
    """The sum of what is known, and why the rest is not."""
    said = [estimates.note] if estimates.note else []
    if estimates.seconds:
        known = sum(estimates.seconds.values()) + estimates.start_s
        left_out = f", without {', '.join(estimates.unknown)}" if estimates.unknown else ""
        said.append(f"{amount(known)} in all{left_out}")
    return said


def amount(seconds: float) -> str:
    """A time as people say it."""
    if seconds < MINUTES:
        return f"about {seconds:.0f} s"
    for unit, most, one in (("min", HOURS, 60), ("h", DAYS, 3_600)):
        if seconds < most:
            return f"about {seconds / one:.{0 if unit == 'min' else 1}f} {unit}"
    return f"about {seconds / 86_400:.1f} days"


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
    from amn_dist.commands.estimates.estimate import has_truth, steps

    if stage.verb == "score":
        return "all truth" if has_truth(pipeline) else "no truth"
    images = len(pipeline.sets[stage.over])
    if stage.verb == "map":
        return f"{images} images"
    section = getattr(pipeline.config, stage.name)
    if section.batch > images:
        return f"none: {images} images, a batch of {section.batch}"
    return f"{steps(section, images)} steps of {section.batch}"


def cost(pipeline: Pipeline, stage: Stage, estimates: Estimates) -> str:
    """Measured seconds of a done stage, an estimate of others.

    A stage that follows another runs in its stream, and its time is part of that one's.
    """
    from amn_dist.commands.estimates.estimate import has_truth
    from amn_dist.commands.estimates.records import measured

    seconds = measured(pipeline.run.stage(stage.name))
    if pipeline.run.is_done(stage) and seconds is not None:
        return f"{seconds:.0f} s"
    if stage.follows is not None:
        return f"with {stage.follows}"
    if pipeline.run.is_done(stage) or (stage.verb == "score" and not has_truth(pipeline)):
        return ""
    if stage.name not in estimates.seconds:
        return "not measured yet"
    rate = estimates.rates.get(stage.name)
    beside = "" if rate is None else f" (at {rate:.1f} images/s)"
    return amount(estimates.seconds[stage.name]) + beside
