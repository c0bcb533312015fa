"""Labels out of shards: a folder of palette PNGs, as VOC has them."""

from __future__ import annotations

from pathlib import Path

from amn_dist.interchange.folders import claim, file_of, is_missing, put
from amn_dist.interchange.selection import SelectedField, map_samples
from amn_dist.report.pictures import palette_png
from amn_dist.shards.shardset import Entry


def export_masks(selected: SelectedField, out: Path) -> int:
    """Write KEY.png for every sample, ids as they are (255 kept) under VOC's palette; the same call again resumes.

    Returns the number of samples.
    """
    claim(out, {"masks": selected.shards.digest, "field": selected.field})

    def write(entry: Entry) -> int:
        path = file_of(out, entry.key, ".png")
        if is_missing(path):
            put(path, palette_png(selected.shards.load(entry.ordinal, selected.field)))
        return 1

    return sum(map_samples(write, selected.shards))
