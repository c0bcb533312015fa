"""Labels out of shards as one COCO file: each class of each image a run-length encoded region."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from pycocotools import mask as run_lengths

from amn_dist.interchange.folders import written
from amn_dist.interchange.selection import SelectedField, map_samples, present
from amn_dist.shards.names import numbers_of
from amn_dist.shards.shardset import Entry, ShardSet


def export_coco(selected: SelectedField, out: Path) -> int:
    """Write images, categories and annotations as COCO's JSON; it appears whole or not at all.

    Images and categories have the ids and names of what the images were packed from, as far as it had ids of its own.
    Else category ids are class ids, and an image's id is the number in its key where every key has one of its own, else
    its position from 1. Background and undecided pixels (255) are in no annotation. Returns the number of annotations.
    """
    with written(out) as file:
        return _write(file, selected)


def regions(labels: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every class in labels uint8[H, W] with its segmentation, area and box [x, y, width, height], in pixels."""
    for number in present(labels):
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
    numbers, ids = image_ids(selected), category_ids(selected)
    categories = [{"id": ids[i], "name": name} for i, name in enumerate(shards.classes) if i]
    file.write('{"info": ' + json.dumps({"description": shards.kind, "digest": shards.digest}))
    file.write(',\n"categories": ' + json.dumps(categories) + ',\n"images": [')
    for position, entry in enumerate(_entries(shards)):
        image = {"id": numbers[entry.ordinal], "file_name": selected.file_name(entry), "key": entry.key}
        image |= {"height": entry.height, "width": entry.width}
        file.write(("," if position else "") + "\n" + json.dumps(image))
    file.write('],\n"annotations": [')

    def regions_of(entry: Entry) -> tuple[Entry, list[tuple[int, dict[str, Any]]]]:
        return entry, list(regions(shards.load(entry.ordinal, selected.field)))

    count = 0
    for entry, of_image in map_samples(regions_of, shards):
        for number, region in of_image:
            count += 1
            head = {"id": count, "image_id": numbers[entry.ordinal], "category_id": ids[number], "iscrowd": 0}
            file.write(("," if count > 1 else "") + "\n" + json.dumps({**head, **region}))
    file.write("]}\n")
    return count


def image_ids(selected: SelectedField) -> list[int]:
    """An id for every sample, in order: its source's own where all have one."""
    own = [] if selected.images is None else [entry.source_id for entry in _entries(selected.images)]
    given = [number for number in own if number is not None]
    if given and len(set(given)) == len(selected.shards):
        return given
    return numbers_of(entry.key for entry in _entries(selected.shards)) or list(range(1, len(selected.shards) + 1))


def category_ids(selected: SelectedField) -> list[int]:
    """The category of every class, in the order of class ids: its source's own where all have one, else class ids."""
    own = None if selected.images is None else selected.images.index.source_ids
    given = [number for number in (own or ())[1:] if number is not None]
    classes = len(selected.shards.classes)
    return [0, *given] if len(set(given)) == classes - 1 else list(range(classes))


def _entries(shards: ShardSet) -> Iterator[Entry]:
    for number in range(len(shards.shard_sizes)):
        yield from shards.shard(number)
