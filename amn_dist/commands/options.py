"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from amn_dist.errors import ConfigError
from amn_dist.storage.paths import path_of

RunPath = Annotated[Any, typer.Argument(parser=path_of, metavar="RUN|URL", help="Folder of a run.")]
RunOption = Annotated[
    Any, typer.Option("--run", parser=path_of, metavar="FOLDER|URL", help="Folder of the run; runs/NAME without it.")
]
DataOption = Annotated[
    Any, typer.Option("--data", parser=path_of, metavar="FOLDER|URL", help="Where the configured sets lie.")
]
MovedData = Annotated[
    Any, typer.Option("--data", parser=path_of, metavar="FOLDER|URL", help="Where the run's sets lie, if they moved.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the file.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
OutAnywhere = Annotated[Any, typer.Option("--out", parser=path_of, metavar="FOLDER|URL", help="Where to write to.")]
"""A path, or a place in object storage."""
ShardSize = Annotated[
    int | None,
    typer.Option("--shard-size", min=1, max=1_000_000, help="Samples a shard; by set size without it."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Quarantine bad inputs (listed, counted); else stop.")]
Address = Annotated[str | None, typer.Option("--address", help="A running Ray cluster; its own without it.")]
ConfigPath = Annotated[Any, typer.Argument(parser=path_of, metavar="CONFIG", help="A file of configs/.")]
Redo = Annotated[str | None, typer.Option(help="Stage to make again, with all that reads it.")]
Keep = Annotated[bool, typer.Option("--keep", help="Go on with work begun from other settings, inputs or code.")]


def check_config_target(option: str, file: Path, *, force: bool) -> None:
    """Refuse to write a configuration over a file that is there, or to one that is none by its name."""
    if file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{option} {file}: expected a name that ends with .yaml")
    if file.exists() and not force:
        raise ConfigError(f"{option} {file}: is there already; take another name, or --force to write over it")
