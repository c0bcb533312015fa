"""Experiments, whole or a stage at a time: `amn run`, `amn fit`, `amn map`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from amn_dist.commands.options import Address, ConfigPath, DataOption, Keep, Redo, RunOption, Settings
from amn_dist.commands.score import print_scores
from amn_dist.errors import ConfigError
from amn_dist.storage.paths import AnyPath
from amn_dist.variables import whole_number

NoReuse = Annotated[bool, typer.Option("--no-reuse", help="Make every stage anew, even if another run has it.")]


def run(
    config: ConfigPath,
    data: DataOption = Path("."),
    run: RunOption = None,
    until: Annotated[str | None, typer.Option(help="Last stage to run.")] = None,
    redo: Redo = None,
    keep: Keep = False,
    set: Settings = None,
    address: Address = None,
    no_reuse: NoReuse = False,
) -> None:
    """Run an experiment to its end; the same command goes on after any stop."""
    experiment = pipeline(config, data, run, set, address=address, reuse=not no_reuse, keep=keep)
    experiment.execute(until=until, redo=redo)
    if until is None or until == "score":
        print_scores(experiment.run.folder)


def fit(
    config: ConfigPath,
    stage: Annotated[str, typer.Argument(help="A learned stage.")],
    data: DataOption = Path("."),
    run: RunOption = None,
    redo: Redo = None,
    keep: Keep = False,
    set: Settings = None,
    member: Annotated[bool, typer.Option("--member", hidden=True)] = False,
) -> None:
    """Train one stage; started by torchrun or deepspeed it is a member of their gang."""
    follower = whole_number("RANK", 0) > 0
    execute_stage(pipeline(config, data, run, set, keep=keep), stage, "fit", redo=redo, member=member or follower)


def map(
    config: ConfigPath,
    stage: Annotated[str, typer.Argument(help="A mapped stage.")],
    data: DataOption = Path("."),
    run: RunOption = None,
    redo: Redo = None,
    keep: Keep = False,
    set: Settings = None,
    address: Address = None,
) -> None:
    """Run one Map over its shards."""
    execute_stage(pipeline(config, data, run, set, address=address, keep=keep), stage, "map", redo=redo)


def pipeline(
    config: AnyPath,
    data: AnyPath,
    run: AnyPath | None,
    settings: list[str] | None,
    *,
    address: str | None = None,
    reuse: bool = True,
    keep: bool = False,
) -> Any:
    """The pipeline of a configuration file."""
    from amn_dist.runs.pipeline import Pipeline
    from amn_dist.runs.run import Run, read_config

    loaded = read_config(config, tuple(settings or ()))
    folder = Run(run or Path("runs") / loaded.name)
    named = data != Path(".")
    return Pipeline(loaded, folder, data, data_named=named, address=address, reuse=reuse, decision=decision(keep))


def decision(keep: bool) -> Any:
    """What becomes of unfinished work of another origin: as the options say, or as whoever sits before us does."""
    from amn_dist.runs.unfinished import Decision

    interactive = sys.stdin.isatty() and sys.stderr.isatty()
    return Decision(keep, partial(typer.confirm, default=False, err=True) if interactive else None)


def execute_stage(pipeline: Any, name: str, verb: str, *, redo: str | None = None, member: bool = False) -> None:
    """Run one stage. Raises ConfigError where it is of another verb."""
    stage = pipeline.stage(name)
    if stage.verb != verb:
        command = "amn score RUN" if stage.verb == "score" else f"amn {stage.verb} ... {name}"
        raise ConfigError(f"{name} is a {stage.verb}, not a {verb}; use `{command}`")
    pipeline.execute(only=name, redo=redo, member=member)
