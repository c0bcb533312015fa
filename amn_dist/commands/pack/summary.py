"""What `amn pack` says at its end: how many images each class has, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from rich.table import Table

from amn_dist.commands.printing import plain_console, print_line
from amn_dist.errors import listed, printable

LONG = 30
"""Classes beyond which a table has two of them a row."""


def print_packed(index: Any, out: Any) -> None:
    """Say what was packed: one line, a table of the classes, and lines about what is not as it should be."""
    from data_shards.summary import read_summary

    count = sum(shard.count for shard in index.shards)
    where = f"{len(index.shards)} shards, {len(index.classes)} classes"
    print_line(f"{out}: {count} samples in {where}, digest {index.digest[:12]}")
    if (summary := read_summary(out)) is not None:
        plain_console().print(count_table(summary))
        for line in lines(summary, out):
            print_line(line)


def count_table(summary: Any) -> Table:
    """Images tagged with each class and, where there is truth, masks that hold it; ids as in the masks."""
    truth = any(row.masks is not None for row in summary.classes)
    headings = ("id", "class", "images", "masks") if truth else ("id", "class", "images")
    rows = [
        (str(number), printable(row.name), str(row.tagged), *([str(row.masks)] if truth else []))
        for number, row in enumerate(summary.classes, 1)
    ]
    beside = 2 if len(rows) > LONG else 1
    height = -(-len(rows) // beside)
    table = Table(box=None, pad_edge=False)
    for heading in headings * beside:
        table.add_column(heading, justify="left" if heading == "class" else "right", overflow="fold")
    parts = [rows[start : start + height] for start in range(0, len(rows), height)]
    for cells in zip_longest(*parts, fillvalue=("",) * len(headings)):
        table.add_row(*(cell for part in cells for cell in part))
    return table


def lines(summary: Any, out: Any) -> Iterator[str]:
    """What else there is to say; what was left out last."""
    if summary.untagged:
        yield f"{summary.untagged} of {summary.images} images have no tag"
    yield from (f"note: {note}" for note in summary.notes)
    if never := [printable(row.name) for row in summary.classes if row.tagged and row.alone == 0]:
        yield f"note: no image has {listed(never, 200)} as its only tag: ICD learns no direction for such a class"
    if (left := summary.left_out) is not None:
        why = "; ".join(f"{count} {reason}" for reason, count in left.reasons.items())
        names = ", ".join(printable(name) for name in left.names)
        more = f" and {left.count - len(left.names)} more" if left.count > len(left.names) else ""
        what = f"{left.count} of {left.of} samples are left out: {printable(why, 800)} ({names}{more})"
        yield f"{what}; all in {out}/quarantine.json"
