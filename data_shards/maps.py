"""A folder of somebody else's activation maps to a shard set over the images they belong to.

Shard by shard over the shards of the images: a killed import goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amn_dist.errors import PLACE, ShardError, printable
from amn_dist.records import ACTIVATION, grid_size
from amn_dist.shards.format import encode
from amn_dist.shards.index import Index, ShardReport
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.shards.writer import Row, read_report, write_index, write_shard
from amn_dist.storage.paths import RemotePath, path_of
from data_shards.mapfile import Scale, read_maps
from data_shards.resumable import BadSample, ResumableSet, explain, stamp_of_inputs
from data_shards.source import key_of, read_file, stamp_of

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

    def stamp(self, number: int) -> str:
        """Changes when the inputs of a shard do."""
        states = [[entry.key, self._state(entry.key)] for entry in self.images.shard(number)]
        return stamp_of_inputs(RULES, self.scale, self.images.digest, states)

    def maps(self, entry: Entry) -> np.ndarray:
        """The maps f16[K, h, w] of an image. Raises ShardError naming the file."""
        if entry.key not in self.files:
            of = "" if entry.source is None else f", here of {printable(entry.source)}"
            raise ShardError(f"{entry.key}.npy: not there; expected a map of every image{of}")
        path = self.files[entry.key]
        name = printable(path.name, PLACE)
        tags = self.images.load(entry.ordinal, "tags")
        try:
            return read_maps(read_file(path, name), tags, (entry.height, entry.width), scale=self.scale)
        except ShardError as error:
            raise ShardError(str(error) if str(error).startswith(name) else f"{name}: {error}") from error

    def _state(self, key: str) -> str:
        return stamp_of([self.files[key]])[1] if key in self.files else "missing"


@dataclass(frozen=True)
class Imported:
    """A finished import. bad: (key, reason) of images without a usable map. others: files that belong to no image."""

    index: Index
    bad: tuple[tuple[str, str], ...]
    others: int


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
    source = MapFolder(find_maps(Path(root)), photos, scale)
    numbers = range(len(photos.shard_sizes))
    others = _check_named(source, root)
    stamps = [source.stamp(number) for number in numbers]
    making = ResumableSet(folder, stamps, IMPORT, RULES, other="finished maps of other files or settings")
    making.prepare()
    bad = {sample.key: sample.reason for sample in making.quarantined()}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        written = [_shard(source, number, making, bad, skip_bad, pool) for number in numbers]
    if bad and not skip_bad:
        making.discard_if_empty()
        raise ShardError(explain(_samples(bad), len(photos), "maps"))
    reports = [report for report in written if report is not None]
    index = write_index(folder, kind="activation", classes=photos.classes, reports=reports)
    return Imported(index, tuple(bad.items()), others)


def find_maps(root: Path) -> dict[str, Path]:
    """The `.npy` files below a folder by the keys of their images. Raises ShardError when two have one key."""
    if not os.path.isdir(root):
        raise ShardError(f"{root}: no such folder; expected .npy files named after the images")
    files: dict[str, Path] = {}
    for path in sorted(root.rglob("*.npy")):
        key = key_of(path.relative_to(root).with_suffix("").as_posix())
        if key in files:
            raise ShardError(
                f"{printable(files[key], PLACE)} and {printable(path, PLACE)} both belong to {key}; keep one"
            )
        files[key] = path
    if not files:
        raise ShardError(f"{root}: holds no .npy files; expected KEY.npy for every image")
    return files


def _shard(
    source: MapFolder, number: int, making: ResumableSet, bad: dict[str, str], skip_bad: bool, pool: ThreadPoolExecutor
) -> ShardReport | None:
    """A shard's report, None when it has bad maps that stop the import. bad: reasons by key, brought up to date."""
    report, entries = read_report(making.folder, number), source.images.shard(number)
    if report is not None and (skip_bad or not any(entry.key in bad for entry in entries)):
        return report
    rows = list(pool.map(lambda entry: _row(source, entry), entries))
    for entry, (_, fault) in zip(entries, rows, strict=True):
        bad.pop(entry.key, None)
        bad |= {entry.key: fault} if fault else {}
    if not skip_bad and any(fault for _, fault in rows):
        return None
    making.quarantine(_samples(bad))  # before the shard, so that none with an empty map is ever taken for whole
    return write_shard(making.folder, number, (row for row, _ in rows))


def _row(source: MapFolder, entry: Entry) -> tuple[Row, str]:
    """A sample ready to be written and, where its map is of no use, why."""
    try:
        maps, fault = source.maps(entry), ""
    except ShardError as error:
        maps, fault = np.zeros((0, *grid_size(entry.height, entry.width)), np.float16), str(error)
    return (entry.key, (entry.height, entry.width), {ACTIVATION: encode(ACTIVATION, maps)}), fault


def _samples(bad: Mapping[str, str]) -> list[BadSample]:
    return [BadSample(key, reason) for key, reason in bad.items()]


def _check_named(source: MapFolder, root: str | os.PathLike[str]) -> int:
    """How many files belong to no image. Raises ShardError when none does."""
    numbers = range(len(source.images.shard_sizes))
    others = source.files.keys() - {entry.key for number in numbers for entry in source.images.shard(number)}
    if len(others) == len(source.files):
        raise ShardError(
            f"{root}: none of {len(others)} files is named after an image of {source.images.url}; "
            f"found {min(others)}.npy, expected such as {source.images.entry(0).key}.npy"
        )
    return len(others)
