"""Labels out of shards: a folder of palette PNGs, as VOC has them."""

from __future__ import annotations

from pathlib import Path

from amn_dist.interchange.artefacts import Artefact, each
from amn_dist.interchange.folders import claim, missing, place, put
from amn_dist.report.pictures import palette_png
from amn_dist.shards.shardset import Entry


def export_masks(found: Artefact, out: Path) -> int:
    """Write KEY.png for every sample, ids as they are (255 kept) under VOC's palette; the same call again resumes.

    Returns the number of samples.
    """
    claim(out, {"masks": found.made.digest, "field": found.field})

    def write(entry: Entry) -> int:
        path = place(out, entry.key, ".png")
        if missing(path):
            put(path, palette_png(found.made.load(entry.ordinal, found.field)))
        return 1

    return sum(each(found.made, write))
