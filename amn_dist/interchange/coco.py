"""Labels out of shards as one COCO file: each class of each image a run-length encoded region."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from pycocotools import mask as run_lengths

from amn_dist.errors import ShardError, printable
from amn_dist.interchange.selection import SelectedField, map_samples
from amn_dist.records import IGNORE
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.storage.atomic import atomic_file

NUMBERED = re.compile(r"(?:.*_)?0*(\d{1,18})")
"""Keys that end in a number, such as COCO's own file names."""


def export_coco(selected: SelectedField, out: Path) -> int:
    """Write images, categories and annotations as COCO's JSON; it appears whole or not at all.

    Category ids are class ids; background and undecided pixels (255) are in no annotation. An image's id is the number
    in its key where every key has one of its own, else its position from 1; its key stands beside it.
    Returns the number of annotations.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(out) as temporary, temporary.open("w", encoding="utf-8") as file:
            count = _write(file, selected)
    except OSError as error:
        raise ShardError(f"{out}: cannot be written ({printable(error)}); make room, run again") from error
    return count


def regions(labels: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every class in labels uint8[H, W] with its segmentation, area and box [x, y, width, height], in pixels."""
    for number in np.unique(labels[(labels > 0) & (labels != IGNORE)]).tolist():
        runs = run_lengths.encode(np.asfortranarray(labels == number, np.uint8))
        yield (
            number,
            {
                "segmentation": {"size": list(labels.shape), "counts": runs["counts"].decode("ascii")},
                "area": int(run_lengths.area(runs)),
                "bbox": [int(side) for side in run_lengths.toBbox(runs)],
            },
        )


def _write(file: TextIO, selected: SelectedField) -> int:
    shards = selected.shards
    numbers = image_ids(shards)
    categories = [{"id": i, "name": name} for i, name in enumerate(shards.classes) if i]
    file.write('{"info": ' + json.dumps({"description": shards.kind, "digest": shards.digest}))
    file.write(',\n"categories": ' + json.dumps(categories) + ',\n"images": [')
    for position, entry in enumerate(_entries(shards)):
        image = {"id": numbers[entry.ordinal], "key": entry.key, "height": entry.height, "width": entry.width}
        file.write(("," if position else "") + "\n" + json.dumps(image))
    file.write('],\n"annotations": [')

    def regions_of(entry: Entry) -> tuple[Entry, list[tuple[int, dict[str, Any]]]]:
        return entry, list(regions(shards.load(entry.ordinal, selected.field)))

    count = 0
    for entry, of_image in map_samples(regions_of, shards):
        for category, region in of_image:
            count += 1
            head = {"id": count, "image_id": numbers[entry.ordinal], "category_id": category, "iscrowd": 0}
            file.write(("," if count > 1 else "") + "\n" + json.dumps({**head, **region}))
    file.write("]}\n")
    return count


def image_ids(shards: ShardSet) -> list[int]:
    """An id for every sample, in order."""
    matches = [NUMBERED.fullmatch(entry.key) for entry in _entries(shards)]
    numbers = [int(match.group(1)) for match in matches if match is not None]
    return numbers if len(set(numbers)) == len(matches) else list(range(1, len(matches) + 1))


def _entries(shards: ShardSet) -> Iterator[Entry]:
    for number in range(len(shards.shard_sizes)):
        yield from shards.shard(number)
