"""Labels out of shards as YOLO's segmentation data: a text of polygons for every image, and data.yaml."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from amn_dist.documents import write_yaml
from amn_dist.interchange.folders import claim, is_missing, put
from amn_dist.interchange.outlines import joined, parts
from amn_dist.interchange.selection import SelectedField, map_samples, present
from amn_dist.shards.shardset import Entry

IMAGES, LABELS, TABLE = "images", "labels", "data.yaml"
"""Of a data set, as ultralytics looks for them: the photographs, the polygons beside them, class names and places."""


def export_yolo(selected: SelectedField, out: Path) -> int:
    """Write labels/NAME.txt for every sample, and data.yaml; the same call again resumes.

    NAME is that of the photograph, which belongs into images/ under it. Classes are counted from 0, without background.
    Undecided pixels are in no polygon. Returns the number of samples.
    """
    names = label_names(selected)
    claim(out, {"yolo": selected.shards.digest, "field": selected.field, "names": names[:1]})
    classes = dict(enumerate(selected.shards.classes[1:]))

    def write(entry: Entry) -> int:
        path = out / LABELS / f"{names[entry.ordinal]}.txt"
        if not path.is_file():  # an image without classes has an empty one
            path.parent.mkdir(parents=True, exist_ok=True)
            put(path, polygons(selected.shards.load(entry.ordinal, selected.field)).encode())
        return 1

    count = sum(map_samples(write, selected.shards))
    if is_missing(out / TABLE):
        put(out / TABLE, write_yaml({"path": ".", "train": IMAGES, "val": IMAGES, "names": classes}).encode())
    return count


def label_names(selected: SelectedField) -> list[str]:
    """The name of every sample's text, in order: that of its photograph without ending, or its key where two would
    have one name."""
    entries = [entry for number in range(len(selected.shards.shard_sizes)) for entry in selected.shards.shard(number)]
    names = [str(PurePosixPath(selected.file_name(entry)).with_suffix("")) for entry in entries]
    return names if len(set(names)) == len(names) else [entry.key for entry in entries]


def polygons(labels: np.ndarray) -> str:
    """A line for every part of every class in labels uint8[H, W]: class from 0, then x y of corners in shares of sides.

    Parts touch by sides; a hole hangs on what surrounds it by a cut.
    """
    sides = np.array(labels.shape[::-1])
    lines = []
    for number in present(labels):
        for loops in parts(labels == number):
            corners = (joined(loops) / sides).ravel().tolist()
            lines.append(" ".join([str(number - 1), *(f"{value:.6g}" for value in corners)]) + "\n")
    return "".join(lines)
