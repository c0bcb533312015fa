"""Labels out of shards as predictions that Label Studio imports: brushes over the images, and their interface."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from amn_dist.errors import printable
from amn_dist.interchange.folders import written
from amn_dist.interchange.selection import SelectedField, map_samples, present
from amn_dist.report.pictures import palette
from amn_dist.shards.shardset import Entry

PREFIX = "/data/local-files/?d="
"""What Label Studio puts before a path in its local storage."""
TAG, IMAGE = "labels", "image"
"""Names of the brushes and of the picture in the interface."""
SIZES = (3, 4, 8, 16)
"""Bits of a length, of which two bits choose one."""


def export_label_studio(selected: SelectedField, out: Path, *, prefix: str = PREFIX) -> int:
    """Write tasks as JSON, and beside it OUT.xml, the labelling interface with the classes and VOC's colours.

    prefix: stands before the name of a photograph in a task. Returns the number of tasks.
    """
    classes = selected.shards.classes

    def task(entry: Entry) -> dict[str, Any]:
        labels = selected.shards.load(entry.ordinal, selected.field)
        prediction = {"model_version": f"amn {selected.shards.kind}", "result": list(map(brush, regions(labels)))}
        return {"data": {IMAGE: prefix + selected.file_name(entry), "key": entry.key}, "predictions": [prediction]}

    def regions(labels: np.ndarray) -> list[tuple[str, np.ndarray]]:
        return [(classes[number], labels == number) for number in present(labels)]

    count = 0
    with written(out) as file:
        for of_image in map_samples(task, selected.shards):
            file.write(("[" if count == 0 else ",") + "\n" + json.dumps(of_image))
            count += 1
        file.write("\n]\n" if count else "[]\n")
    with written(out.with_suffix(".xml")) as file:
        file.write(interface(classes))
    return count


def brush(region: tuple[str, np.ndarray]) -> dict[str, Any]:
    """A class and its pixels bool[H, W] as a result of a task."""
    name, inside = region
    value = {"format": "rle", "rle": encode_brush(inside), "brushlabels": [printable(name)]}
    size = {"original_height": inside.shape[0], "original_width": inside.shape[1], "image_rotation": 0}
    return {"from_name": TAG, "to_name": IMAGE, "type": "brushlabels", **size, "value": value}


def interface(classes: tuple[str, ...]) -> str:
    """The labelling interface: a brush a class, in the colours of our masks."""
    colours = palette()
    labels = "".join(
        f'    <Label value={quoteattr(printable(name))} background="#{bytes(colours[number]).hex()}"/>\n'
        for number, name in enumerate(classes)
        if number
    )
    image = f'  <Image name="{IMAGE}" value="${IMAGE}" zoom="true"/>\n'
    return f'<View>\n{image}  <BrushLabels name="{TAG}" toName="{IMAGE}">\n{labels}  </BrushLabels>\n</View>\n'


def encode_brush(inside: np.ndarray) -> list[int]:
    """Pixels bool[H, W] in the run lengths of Label Studio's brushes, as bytes (thi.ng/rle-pack, RGBA of 0 and 255).

    A head of 53 bits: the number of values in 32, bits of a value less 1 in 5, the four SIZES less 1 in 4 each. Then
    runs: a bit 1, two bits that choose the size of the length, the length less 1, the value in 8 bits.
    """
    values = inside.ravel()
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    lengths = 4 * np.diff(np.append(starts, values.size))
    head = f"{4 * values.size:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in SIZES)
    bits = head + "".join(
        _run(length, 255 * int(values[start])) for start, length in zip(starts, lengths.tolist(), strict=True)
    )
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def _run(length: int, value: int) -> str:
    """Bits of equal values; what is longer than a length can be comes in several runs."""
    longest = 2 ** SIZES[-1]
    whole, rest = divmod(length, longest)
    return _short_run(longest, value) * whole + (_short_run(rest, value) if rest else "")


def _short_run(length: int, value: int) -> str:
    choice = next(number for number, size in enumerate(SIZES) if length <= 2**size)
    return f"1{choice:02b}{length - 1:0{SIZES[choice]}b}{value:08b}"
