"""A folder of somebody else's activation maps to a shard set over the images they belong to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amn_dist.errors import PLACE, ShardError, printable
from amn_dist.records import ACTIVATION, grid_size
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.storage.paths import RemotePath, path_of
from data_shards.mapfile import Scale, read_maps
from data_shards.overlay import Imported, count_others, file_of, file_states, files_by_key, write_overlay
from data_shards.resumable import ResumableSet, stamp_of_inputs
from data_shards.source import read_file

IMPORT = "import.json"
"""What the shards are made from; tells a restarted import which of them still hold."""
RULES = 1
"""Raised when the same files give other maps."""


@dataclass(frozen=True)
class MapFolder:
    """Where maps come from and how they are read. files: `.npy` by key. images: the set they lie over."""

    files: dict[str, Path]
    images: ShardSet
    scale: Scale
    field: str = ACTIVATION
    what: str = "maps"

    def stamp(self, number: int) -> str:
        """Changes when the inputs of a shard do."""
        return stamp_of_inputs(RULES, self.scale, self.images.digest, file_states(self.files, self.images, number))

    def array(self, entry: Entry) -> np.ndarray:
        """The maps f16[K, h, w] of an image. Raises ShardError naming the file."""
        path = file_of(self.files, entry, ".npy", "a map")
        name = printable(path.name, PLACE)
        tags = self.images.load(entry.ordinal, "tags")
        try:
            return read_maps(read_file(path, name), tags, (entry.height, entry.width), scale=self.scale)
        except ShardError as error:
            raise ShardError(str(error) if str(error).startswith(name) else f"{name}: {error}") from error

    def empty(self, entry: Entry) -> np.ndarray:
        """No map, f16[0, h, w]."""
        return np.zeros((0, *grid_size(entry.height, entry.width)), np.float16)


def import_maps(
    root: str | os.PathLike[str],
    images: str | os.PathLike[str],
    out: str | os.PathLike[str] | RemotePath,
    *,
    scale: Scale = "keep",
    skip_bad: bool = False,
) -> Imported:
    """Write the maps of a folder as a shard set of kind `activation` over an image set; the same call again resumes.

    root: folder with KEY.npy anywhere below, dictionaries as docs/interchange.md describes. skip_bad: an image without
    a usable map gets an empty one, f16[0, h, w], and is listed in quarantine.json. Raises ShardError naming bad
    files, or saying that `out` holds something else.
    """
    photos, folder = ShardSet.open(images), path_of(out)
    source = MapFolder(files_by_key(Path(root), ".npy"), photos, scale)
    others = count_others(source.files, photos, root, ".npy")
    stamps = [source.stamp(number) for number in range(len(photos.shard_sizes))]
    making = ResumableSet(folder, stamps, IMPORT, RULES, other="finished maps of other files or settings")
    return write_overlay(source, making, kind="activation", skip_bad=skip_bad, others=others)
