"""Labels out of shards as one file that CVAT imports: `CVAT for images 1.1`, a mask a class and image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from amn_dist.errors import printable
from amn_dist.interchange.folders import written
from amn_dist.interchange.selection import SelectedField, map_samples, present
from amn_dist.report.pictures import palette
from amn_dist.shards.shardset import Entry


def export_cvat(selected: SelectedField, out: Path) -> int:
    """Write the XML of annotations; images are told by their names. Returns the number of masks."""
    classes = selected.shards.classes

    def image(entry: Entry) -> tuple[Entry, list[str]]:
        labels = selected.shards.load(entry.ordinal, selected.field)
        return entry, [mask(classes[number], labels == number) for number in present(labels)]

    count = 0
    with written(out) as file:
        file.write(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n{meta(classes)}')
        for entry, masks in map_samples(image, selected.shards):
            count += len(masks)
            name = quoteattr(selected.file_name(entry))
            size = f'width="{entry.width}" height="{entry.height}"'
            file.write(f'  <image id="{entry.ordinal}" name={name} {size}>\n{"".join(masks)}  </image>\n')
        file.write("</annotations>\n")
    return count


def meta(classes: Sequence[str]) -> str:
    """The labels of the task, in the colours of our masks."""
    colours = palette()
    labels = "".join(
        f"      <label><name>{escape(printable(name))}</name><color>#{bytes(colours[number]).hex()}</color>"
        "<type>mask</type><attributes/></label>\n"
        for number, name in enumerate(classes)
        if number
    )
    return f"  <meta><task><labels>\n{labels}    </labels></task></meta>\n"


def mask(name: str, inside: np.ndarray) -> str:
    """A class and its pixels bool[H, W], cut to their box: lengths of runs row by row, the first one outside."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    top, left = int(rows[0]), int(columns[0])
    box = inside[top : rows[-1] + 1, left : columns[-1] + 1]
    values = box.ravel()
    changes = np.flatnonzero(np.concatenate([[False], values[:-1]]) != values)
    runs = ", ".join(str(length) for length in np.diff(np.concatenate([[0], changes, [values.size]])).tolist())
    place = f'left="{left}" top="{top}" width="{box.shape[1]}" height="{box.shape[0]}"'
    label = f'label={quoteattr(printable(name))} source="auto" occluded="0" z_order="0"'
    return f'    <mask {label} rle="{runs}" {place}></mask>\n'
