"""Arguments to one call."""

from __future__ import annotations

import errno
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from amn_dist.commands.bench import bench
from amn_dist.commands.exports import exports
from amn_dist.commands.imports import imports
from amn_dist.commands.lines import plain_console, say
from amn_dist.commands.options import Address, DataOption, Out, RunOption, RunPath, Settings
from amn_dist.commands.pack import pack
from amn_dist.errors import PLACE, AmnError, ConfigError, StageError, printable
from amn_dist.storage.paths import AnyPath, path_of
from amn_dist.variables import whole_number

INTERRUPTED = 130
"""The exit code typer makes of Ctrl-C."""

app = typer.Typer(
    name="amn",
    help="Weakly-supervised semantic segmentation: images with tags in, pixel masks and a segmentation network out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(pack, name="pack")
app.add_typer(imports, name="import")
app.add_typer(exports, name="export")
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench)

ConfigPath = Annotated[Any, typer.Argument(parser=path_of, metavar="CONFIG", help="A file of configs/.")]
Redo = Annotated[str | None, typer.Option(help="Stage to make again, with all that reads it.")]
Keep = Annotated[bool, typer.Option("--keep", help="Go on with work begun from other settings, inputs or code.")]
NoReuse = Annotated[bool, typer.Option("--no-reuse", help="Make every stage anew, even if another run has it.")]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Options of every command."""


@app.command()
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
    line = pipeline(config, data, run, set, address=address, reuse=not no_reuse, keep=keep)
    line.execute(until=until, redo=redo)
    if until is None or until == "score":
        show_scores(line.run.folder)


@app.command()
def plan(config: ConfigPath, data: DataOption = Path("."), run: RunOption = None, set: Settings = None) -> None:
    """Say what is done and what is next, with an estimate of its cost."""
    from amn_dist.commands.plan import plan_table

    plain_console().print(plan_table(pipeline(config, data, run, set)))


@app.command()
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
    single(pipeline(config, data, run, set, keep=keep), stage, "fit", redo=redo, member=member or follower)


@app.command()
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
    single(pipeline(config, data, run, set, address=address, keep=keep), stage, "map", redo=redo)


@app.command()
def score(
    run: RunPath,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", help="score.key=value, such as score.protocol=coco; other sections stay as they are."),
    ] = None,
) -> None:
    """Score everything a run has made so far: per-class IoU, mIoU, threshold curves."""
    from amn_dist.runs.pipeline import reopen

    for setting in set or ():
        if not setting.strip().startswith("score."):
            raise ConfigError(f"--set {printable(setting)}: expected a setting of scores, such as score.protocol=coco")
    reopen(run, tuple(set or ())).execute(only="score")
    show_scores(run, classes=True)


@app.command()
def report(
    runs: Annotated[
        list[Any], typer.Argument(parser=path_of, metavar="RUN|URL...", help="Runs to be shown side by side.")
    ],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("report.html"),
    images: Annotated[int, typer.Option(help="Most images the gallery shows.", min=0, max=1_000_000)] = 200,
) -> None:
    """Write one self-contained HTML file: scores, thresholds, losses, times, images through all stages."""
    from amn_dist.report.page import write_report

    size = write_report(runs, out, images=images)
    say(f"{out} ({size / 2**20:.1f} MiB)")


@app.command()
def predict(
    run: RunPath,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER...", help="Photographs, folders of them.")],
    out: Out = Path("predictions"),
) -> None:
    """Segment photographs of any size with the network of a finished run: masks and overlays."""
    from amn_dist.commands.predict import predict_files

    unread = 0
    for done in predict_files(run, images, out):
        if done.note:
            say(f"amn: {done.note}", err=True)
        if done.mask is not None:
            say(done.mask)
        unread += done.mask is None
    raise typer.Exit(1 if unread else 0)


@app.command()
def show(
    place: Annotated[Any, typer.Argument(parser=path_of, metavar="DIR|URL|RUN", help="A shard set or a run.")],
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY...", help="Samples; a few of each set without.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Picture to write.")] = Path("show.png"),
) -> None:
    """Draw samples through the stages as one picture."""
    from amn_dist.report.gallery import gallery, named, places, spread, write_picture

    sets, missing = places(place)
    for text in missing:
        say(f"amn: {text}", err=True)
    picture = gallery(named(sets, keys) if keys else spread(sets, 4))
    write_picture(picture, out)
    say(f"{out} ({picture.width}x{picture.height})")


@app.command()
def doctor(
    cluster: Annotated[bool, typer.Option("--cluster", help="Ask every node of a Ray cluster too.")] = False,
    address: Address = None,
    run: Annotated[
        Any,
        typer.Option("--run", parser=path_of, metavar="FOLDER|URL", help="Folder for runs, to be seen by every node."),
    ] = Path("runs"),
    trial: Annotated[bool, typer.Option("--try", help="Run every stage over a few drawn scenes; a minute.")] = False,
) -> None:
    """Say what this machine (or cluster) can do, which versions it has, and what is missing."""
    from amn_dist.commands.doctor.machine import examine

    checks = examine()
    if cluster or address is not None:
        from amn_dist.commands.doctor.cluster import examine_cluster

        checks += examine_cluster(address, run)
    if trial:
        from amn_dist.commands.doctor.trial import try_out

        checks.append(try_out())
    table = Table(box=None)
    for heading in ("", "check", "found", "what to do"):
        table.add_column(heading)
    for check in checks:
        state = "ok" if check.ok else "MISSING" if check.needed else "note"
        table.add_row(state, *(printable(text, PLACE) for text in (check.name, check.found, check.advice)))
    plain_console().print(table)
    raise typer.Exit(0 if all(check.ok or not check.needed for check in checks) else 1)


@app.command()
def demo(
    run: Annotated[Path, typer.Option("--run", help="Folder for shards, runs and pictures.")] = Path("runs/demo"),
    images: Annotated[int, typer.Option(help="Training scenes.", min=32, max=1_000_000)] = 320,
    redo: Redo = None,
    keep: Keep = False,
    set: Settings = None,
) -> None:
    """Draw synthetic scenes, run irn and amn on them, print scores, write a report. Minutes on two cores."""
    from amn_dist.commands.demo import run_demo

    console = plain_console()
    run_demo(run, images=images, settings=tuple(set or ()), console=console, redo=redo, decision=decision(keep))


@app.command()
def verify(
    place: Annotated[
        Any, typer.Argument(parser=path_of, metavar="DIR|URL", help="A shard set, or a tar of somebody else's.")
    ],
) -> None:
    """Check every shard against its report and decode every image."""
    from data_shards.verify import verify as check

    say(check(place))


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
    return Pipeline(loaded, folder, data, address=address, reuse=reuse, decision=decision(keep))


def decision(keep: bool) -> Any:
    """What becomes of unfinished work of another origin: as the options say, or as whoever sits before us does."""
    from amn_dist.runs.unfinished import Decision

    somebody = sys.stdin.isatty() and sys.stderr.isatty()
    return Decision(keep, partial(typer.confirm, default=False, err=True) if somebody else None)


def single(line: Any, name: str, verb: str, *, redo: str | None = None, member: bool = False) -> None:
    """One stage of the right verb."""
    stage = line.stage(name)
    if stage.verb != verb:
        command = "amn score RUN" if stage.verb == "score" else f"amn {stage.verb} ... {name}"
        raise ConfigError(f"{name} is a {stage.verb}, not a {verb}; use `{command}`")
    line.execute(only=name, redo=redo, member=member)


def show_scores(folder: AnyPath, *, classes: bool = False) -> None:
    """Print a run's score tables, and what is missing in them."""
    from amn_dist.report.tables import class_table, protocol_notes, score_table, threshold_table
    from amn_dist.runs.run import read_json

    console = plain_console()
    scores = read_json(folder / "score" / "score.json")
    tables = [score_table(scores, title=str(folder)), threshold_table(scores)]
    tables += [class_table(scores, over) for over in scores["sets"]] if classes else []
    for table in tables:
        if table.row_count:
            console.print(table)
    rows = [row for found in scores["sets"].values() for row in found["rows"].values()]
    for protocol, note in protocol_notes(rows).items():
        console.print(f"{protocol} protocol: {note}", highlight=False)
    for missing in scores.get("missing", []):
        console.print(f"missing: {printable(missing)}", highlight=False)


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
    signal.signal(signal.SIGTERM, terminate)
    try:
        with handlers_heard():
            sys.exit(app(prog_name="amn", standalone_mode=False) or 0)
    except AmnError as error:
        if debug:
            raise
        say(f"amn: {error}", err=True)
        sys.exit(error.exit_code)
    except (SystemExit, KeyboardInterrupt) as end:
        code = end.code if isinstance(end, SystemExit) else INTERRUPTED
        if code == INTERRUPTED:
            say("amn: stopped by Ctrl-C; the same command goes on", err=True)
        sys.exit(code)
    except typer.TyperException as error:  # of the arguments
        if told := printable(error.format_message(), 500):  # none where the help was shown instead
            context = getattr(error, "ctx", None)
            say(f"amn: {told.rstrip('.')}; see `{context.command_path if context else 'amn'} --help`", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            say(
                f"amn: {printable(error.filename)}: too long for a path, expected 255 bytes a name and 4095 in all",
                err=True,
            )
            sys.exit(2)
        say(f"amn: {type(error).__name__}: {printable(str(error), 500)} (--debug shows where)", err=True)
        sys.exit(1)
