"""Labels out of shards as one COCO file: each class of each image a run-length encoded region."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from amn_dist.errors import ShardError, printable
from amn_dist.interchange.artefacts import Artefact, each
from amn_dist.records import IGNORE
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.storage.atomic import atomic_file

NUMBERED = re.compile(r"(?:.*_)?0*(\d{1,18})")
"""Keys that end in a number, such as COCO's own file names."""


def export_coco(found: Artefact, out: Path) -> int:
    """Write images, categories and annotations as COCO's JSON; it appears whole or not at all.

    Category ids are class ids; background and undecided pixels (255) are in no annotation. An image's id is the number
    in its key where every key has one of its own, else its position from 1; its key stands beside it.
    Returns the number of annotations.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(out) as temporary, temporary.open("w", encoding="utf-8") as file:
            count = _write(file, found)
    except OSError as error:
        raise ShardError(f"{out}: cannot be written ({printable(error)}); make room, run again") from error
    return count


def regions(labels: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every class in labels uint8[H, W] with its segmentation, area and box [x, y, width, height], in pixels."""
    for number in np.unique(labels[(labels > 0) & (labels != IGNORE)]).tolist():
        inside = labels == number
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        yield (
            number,
            {
                "segmentation": {"size": list(labels.shape), "counts": run_text(run_lengths(inside))},
                "area": int(inside.sum()),
                "bbox": [int(side) for side in box],
            },
        )


def run_lengths(inside: np.ndarray) -> np.ndarray:
    """Lengths of the runs of bool[H, W] down its columns, outside and inside by turns, outside first (may be 0)."""
    flat = inside.ravel(order="F")
    ends = np.concatenate([np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    lengths = np.diff(ends, prepend=0)
    return np.concatenate([[0], lengths]) if flat[:1].any() else lengths


def run_text(lengths: np.ndarray) -> str:
    """Run lengths as COCO's compressed text.

    From the fourth on, a run is told as its difference to the last of its own kind. A number is cut into groups of five
    bits, lowest first; a sixth bit says that more follow, the highest bit of the last group is the sign; 48 is added.
    """
    steps = lengths.astype(np.int64)
    steps[3:] -= lengths[1:-2]
    text = bytearray()
    for value in steps.tolist():
        more = True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text.append((group | (32 if more else 0)) + 48)
    return text.decode("ascii")


def _write(file: TextIO, found: Artefact) -> int:
    made = found.made
    numbers = image_ids(made)
    categories = [{"id": i, "name": name} for i, name in enumerate(made.classes) if i]
    file.write('{"info": ' + json.dumps({"description": made.kind, "digest": made.digest}))
    file.write(',\n"categories": ' + json.dumps(categories) + ',\n"images": [')
    for position, entry in enumerate(_entries(made)):
        image = {"id": numbers[entry.ordinal], "key": entry.key, "height": entry.height, "width": entry.width}
        file.write(("," if position else "") + "\n" + json.dumps(image))
    file.write('],\n"annotations": [')
    count = 0
    for entry, labels in each(made, lambda entry: (entry, list(regions(made.load(entry.ordinal, found.field))))):
        for category, region in labels:
            count += 1
            head = {"id": count, "image_id": numbers[entry.ordinal], "category_id": category, "iscrowd": 0}
            file.write(("," if count > 1 else "") + "\n" + json.dumps({**head, **region}))
    file.write("]}\n")
    return count


def image_ids(made: ShardSet) -> list[int]:
    """An id for every sample, in order."""
    found = [NUMBERED.fullmatch(entry.key) for entry in _entries(made)]
    numbers = [int(match.group(1)) for match in found if match is not None]
    return numbers if len(set(numbers)) == len(found) else list(range(1, len(found) + 1))


def _entries(made: ShardSet) -> Iterator[Entry]:
    for number in range(len(made.shard_sizes)):
        yield from made.shard(number)
