"""The command line: every command under its name, every error as one line and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from amn_dist.caches import redirect
from amn_dist.commands.bench import bench
from amn_dist.commands.calibrate.command import calibrate
from amn_dist.commands.demo import demo
from amn_dist.commands.doctor.command import doctor
from amn_dist.commands.exports import exports
from amn_dist.commands.imports import imports
from amn_dist.commands.init.command import init
from amn_dist.commands.pack.command import pack
from amn_dist.commands.plan import plan
from amn_dist.commands.predict.command import predict
from amn_dist.commands.printing import print_line
from amn_dist.commands.report import report
from amn_dist.commands.run import fit, map, run
from amn_dist.commands.score import score
from amn_dist.commands.show import show
from amn_dist.commands.verify import verify
from amn_dist.errors import AmnError, ConfigFaults, StageError, printable

INTERRUPTED = 130
"""The exit code typer makes of Ctrl-C."""

app = typer.Typer(
    name="amn",
    help="Weakly-supervised semantic segmentation: images with tags in, pixel masks and a segmentation network out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench)
for command in (init, run, plan, fit, map, score, report, calibrate, predict, show, doctor, demo, verify):
    app.command()(command)
app.add_typer(pack, name="pack")
app.add_typer(imports, name="import")
app.add_typer(exports, name="export")


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Options of every command."""


def terminate(signum: int, frame: types.FrameType | None) -> None:
    """SIGTERM between two training steps or shards: what is finished stays."""
    raise StageError("stopped by SIGTERM; the same command goes on")


@contextmanager
def handlers_heard() -> Iterator[None]:
    """What a signal's handler raises inside compiled code, which wraps it in a SystemError, comes out as it was."""
    try:
        yield
    except SystemError as error:
        raise error.__cause__ or error from None


def main() -> None:
    """Run the command line; errors are one line, tracebacks only with --debug."""
    debug = "--debug" in sys.argv
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads of two processes starve each other
    signal.signal(signal.SIGTERM, terminate)
    try:
        with handlers_heard():
            redirect()
            sys.exit(app(prog_name="amn", standalone_mode=False) or 0)
    except (SystemExit, KeyboardInterrupt) as end:
        code = end.code if isinstance(end, SystemExit) else INTERRUPTED
        if code == INTERRUPTED:
            print_line("error: stopped by Ctrl-C; the same command goes on", err=True)
        sys.exit(code)
    except Exception as error:
        if debug and not isinstance(error, typer.TyperException):
            raise
        message, code = answer(error)
        for line in error.args if isinstance(error, ConfigFaults) else filter(None, [message]):
            print_line(f"error: {line}", err=True)
        sys.exit(code)


def answer(error: Exception) -> tuple[str, int]:
    """What is said of an error, and the exit code; nothing is said where typer has shown the help instead."""
    if isinstance(error, AmnError):
        return str(error), error.exit_code
    if isinstance(error, typer.TyperException):  # of the arguments
        message, context = printable(error.format_message(), 500), getattr(error, "ctx", None)
        advice = f"see `{context.command_path if context else 'amn'} --help`"
        return f"{message.rstrip('.')}; {advice}" if message else "", error.exit_code
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{printable(error.filename)}: too long for a path, expected 255 bytes a name and 4095 in all", 2
    if isinstance(error, PermissionError):
        return f"{printable(error.filename)}: {printable(error).lower()}; ask its owner, or choose another place", 2
    return f"{type(error).__name__}: {printable(str(error), 500)} (--debug shows where)", 1
