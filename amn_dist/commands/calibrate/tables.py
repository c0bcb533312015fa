"""What `amn calibrate` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from amn_dist.commands.calibrate.drawn import Calibrated, shown
from amn_dist.commands.calibrate.next_images import WorthDrawing
from amn_dist.commands.printing import plain_console, print_line, print_table
from amn_dist.ops.metrics.threshold_choice import CONFIDENCE
from amn_dist.report.tables import PROTOCOLS, percent
from amn_dist.runs.pipeline import Pipeline

if TYPE_CHECKING:
    from amn_dist.commands.calibrate.estimate import Estimate


WORTH = (
    "an estimate: where labels and their own CRF agree best. On the eight kinds of maps it was tried on it lost 0.0 to "
    "4.7 points of mIoU (most on a walk), and the default of 0.25 lost 0.2 to 13.0; drawn masks say how sure they are"
)
"""What is said of a threshold without masks."""


def print_calibration(pipeline: Pipeline, rows: Sequence[Calibrated], within: float) -> None:
    """A row for each of the run's maps."""
    protocol = PROTOCOLS[pipeline.config.score.by("train")][0]
    table = Table(title=f"{rows[0].masks} masks, {protocol} protocol")
    table.add_column("maps")
    headings = (
        "now",
        "mIoU",
        "regret",
        "chosen",
        f"{CONFIDENCE:.0%} interval",
        "mIoU",
        "regret",
        f"masks for {within:g}",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.maps.name, *figures(row, within))
    print_table(plain_console(), table)


def figures(row: Calibrated, within: float) -> tuple[str, ...]:
    """The cells of a row: mIoU over the masks and expected regret, in percent, now and chosen; masks still to draw."""
    choice, now = row.choice, row.now
    low, high = choice.interval
    more = row.more_masks(within)
    return (
        f"{row.maps.now:.2f}",
        percent(float(choice.curve[now])),
        percent(float(choice.regrets[now])),
        f"{choice.threshold:.2f}",
        f"{low:.2f} to {high:.2f}",
        percent(float(choice.curve[choice.best])),
        percent(choice.regret),
        f"about {more} more" if more else "enough",
    )


def next_lines(row: Calibrated, worth: Sequence[WorthDrawing], seen: int, left: int) -> Iterator[str]:
    """What to draw next, by the last activation."""
    low, high = row.choice.interval
    of = f"{seen} of {left} images without a mask, drawn by chance" if seen < left else f"{left} images without a mask"
    if not worth:
        yield f"draw next: none changes between {low:.2f} and {high:.2f} ({of}; {row.maps.name})"
        return
    names = shown([f"{image.name} ({image.changing:.0%})" for image in worth], len(worth))
    yield f"draw next: {names}"
    yield (
        f"in brackets: share of an image whose label changes between {low:.2f} and {high:.2f} of {row.maps.name}; {of}"
    )


def print_estimates(rows: Sequence[Estimate]) -> None:
    """A row for each of the run's maps, and what the guess is worth."""
    table = Table(title=f"no masks, {rows[0].images} images")
    for heading in ("maps", "now", "estimate"):
        table.add_column(heading, justify="left" if heading == "maps" else "right")
    for row in rows:
        table.add_row(row.maps.name, f"{row.maps.now:.2f}", f"{row.threshold:.2f}")
    print_table(plain_console(), table)
    print_line(f"note: {WORTH}")
