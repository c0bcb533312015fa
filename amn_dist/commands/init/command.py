"""A configuration for a set of one's own and this machine: `amn init`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from amn_dist.commands.options import check_config_target
from amn_dist.commands.printing import plain_console, print_line, print_table
from amn_dist.errors import PLACE, ConfigError, printable
from amn_dist.storage.paths import path_of

if TYPE_CHECKING:  # annotations alone: `amn --help` does not wait for torch
    from amn_dist.commands.init.choices import Plan

METHODS = ("irn", "amn", "icd", "icd_amn")
"""Methods that need nothing but tagged images and a backbone."""


def init(
    images: Annotated[Any, typer.Argument(parser=path_of, metavar="SET|URL", help="A packed set to learn from.")],
    out: Annotated[Path, typer.Option("--out", help="The configuration to write, a .yaml.")],
    val: Annotated[
        Any, typer.Option("--val", parser=path_of, metavar="SET|URL", help="A packed set to predict on.")
    ] = None,
    method: Annotated[str, typer.Option(help="irn, amn, icd or icd_amn.")] = "amn",
    weights: Annotated[Path | None, typer.Option(help="Weights of a backbone, a file or a folder of them.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a configuration for a packed set and this machine, and say what was chosen and why."""
    if method not in METHODS:
        advice = "; see docs/interchange.md" if method == "refine" else "; copy a file of configs/ for others"
        raise ConfigError(f"--method {printable(method)}: expected {', '.join(METHODS)}{advice}")
    check_config_target("--out", out, force=force)
    plan = _planned(images, val, method, weights)
    _write(plan, out)
    _tell(plan, out)


def run_name(out: Path) -> str:
    """The name of the run, after the file."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", out.stem).lstrip("_.-")[:100] or "own"


def _planned(images: Any, val: Any, method: str, weights: Path | None) -> Plan:
    from amn_dist.commands.init.choices import Plan
    from amn_dist.commands.init.facts import look_at_images, look_at_machine
    from amn_dist.commands.init.weights import find_weights
    from amn_dist.runs.inputs import first_difference

    train, other = look_at_images(images), None if val is None else look_at_images(val)
    if other is not None and other.classes != train.classes:
        difference = first_difference(other.classes, train.classes)
        raise ConfigError(f"{other.url}: its classes are not those of {train.url} ({difference}); pack both alike")
    return Plan(method, train, other, look_at_machine(), find_weights(weights))


def _write(plan: Plan, out: Path) -> None:
    """Write the configuration as soon as it reads back."""
    from amn_dist.commands.init.text import config_text
    from amn_dist.config import parse_config
    from amn_dist.storage.atomic import commit

    text = config_text(plan, run_name(out))
    parse_config(text, where=str(out))
    commit(out, text.encode())


def _tell(plan: Plan, out: Path) -> None:
    from amn_dist.commands.init.reasons import cautions, reasons

    table = Table(title=printable(f"{out}: {plan.method} on {plan.train.url}", PLACE))
    for heading in ("setting", "chosen", "because"):
        table.add_column(heading)
    for row in reasons(plan):
        table.add_row(*(printable(cell, PLACE) for cell in row))
    print_table(plain_console(), table)
    for said in cautions(plan):
        print_line(f"note: {said}")
    print_line(f"next: amn plan {out}; amn run {out}")
