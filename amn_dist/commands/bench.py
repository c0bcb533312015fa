"""Benchmarks of the checkout this package runs from: `amn bench`."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from amn_dist.commands.printing import print_line
from amn_dist.errors import ConfigError, printable

CHECK = "check"
"""The file that compares results with thresholds.yaml; every other one with a `main` is a benchmark."""
LAST = ("gpu", "peers", "rehearsal", "soak", "soak_hosts")
"""The longest, at the end of `all`."""
BY_NAME = ("calibrate", "classes", "exported", "proposals", "seeds", "soak_hosts")
"""They ask for arguments, or for root and half an hour, and are no part of `all`."""

BenchmarkName = Annotated[
    str | None, typer.Argument(metavar="NAME|all", help="A benchmark; without it they are listed.")
]


def bench(
    context: typer.Context,
    name: BenchmarkName = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare results with thresholds.yaml; exit code 1 where one falls short.")
    ] = False,
    run: Annotated[bool, typer.Option("--run", help="With --check: run the benchmark first.")] = False,
) -> None:
    """Run a benchmark, or check what is kept of the last run; further arguments are the benchmark's own."""
    root = checkout()
    benchmarks = questions(root / "benchmarks")
    if run and not (check and name):
        raise ConfigError("amn bench --run: found no name or no --check, expected `amn bench NAME --check --run`")
    if name is None and not check:
        for title, question in benchmarks.items():
            print_line(f"{title:<12} {question}")
        return
    names = chosen(name, benchmarks)
    if check:
        failed = _run_all(root, names, context.args) if run else []
        raise typer.Exit(1 if _start(root, CHECK, [] if name in (None, "all") else names) or failed else 0)
    raise typer.Exit(1 if _run_all(root, names, context.args) else 0)


def checkout() -> Path:
    """The repository this package is run from. Raises ConfigError for an installed wheel, which has no benchmarks."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / "harness.py").is_file():
        raise ConfigError(
            f"amn bench: no benchmarks beside {root / 'amn_dist'}; they are not part of an installed package, "
            "use an editable installation or a checkout"
        )
    return root


def questions(folder: Path) -> dict[str, str]:
    """What every benchmark of a folder asks, by name; the longest come last."""
    by_name = {}
    for path in sorted(folder.glob("*.py"), key=lambda path: (path.stem in LAST, path.stem)):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        runs = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        if runs and path.stem != CHECK:
            by_name[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return by_name


def chosen(name: str | None, benchmarks: dict[str, str]) -> list[str]:
    """The benchmarks a name stands for. Raises ConfigError naming those there are."""
    if name in (None, "all"):
        return [benchmark for benchmark in benchmarks if benchmark not in BY_NAME]
    if name not in benchmarks:
        raise ConfigError(f"amn bench {printable(name)}: no such benchmark; found {', '.join(benchmarks)}, or all")
    return [name]


def _run_all(root: Path, names: list[str], arguments: list[str]) -> list[str]:
    """Run one after the other; the names of those that failed."""
    if len(names) > 1 and arguments:
        raise ConfigError(
            f"amn bench all: found {printable(' '.join(arguments))}; arguments go to one benchmark, name it"
        )
    failed = []
    for name in names:
        if len(names) > 1:
            print_line(f"== {name}")
        if _start(root, name, arguments):
            failed.append(name)
    if len(names) > 1 and failed:
        print_line(f"failed: {', '.join(failed)}", err=True)
    return failed


def _start(root: Path, module: str, arguments: list[str]) -> int:
    """Exit code of a module of benchmarks/, run where the user is."""
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    # -P: a folder named benchmarks where the user is must not come before ours.
    command = [sys.executable, "-P", "-m", f"benchmarks.{module}", *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
