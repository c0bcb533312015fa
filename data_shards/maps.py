"""A folder of somebody else's activation maps to a shard set over the images they belong to.

Shard by shard over the shards of the images: a killed import goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amn_dist.documents import read_json
from amn_dist.errors import PLACE, ShardError, listed, printable
from amn_dist.records import grid_size
from amn_dist.shards.format import encode
from amn_dist.shards.index import INDEX, Index, ShardReport
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.shards.writer import Row, read_report, write_index, write_shard
from amn_dist.storage.atomic import clean_unfinished, commit_json, json_bytes
from amn_dist.storage.paths import AnyPath, RemotePath, path_of
from data_shards.mapfile import Scale, read_maps
from data_shards.pack import QUARANTINE, Plan
from data_shards.source import key_of, read_file, stamp_of

FIELD = "activation.f16"
IMPORT = "import.json"
"""What the shards are made from; tells a restarted import which of them still hold."""
RULES = 1
"""Raised when the same files give other maps."""
LISTED = 8
"""Bad maps an error message spells out."""


@dataclass(frozen=True)
class MapFolder:
    """Where maps come from and how they are read. files: `.npy` by key. images: the set they lie over."""

    files: dict[str, Path]
    images: ShardSet
    scale: Scale

    def stamp(self, number: int) -> str:
        """Changes when the inputs of a shard do."""
        found = [[entry.key, self._state(entry.key)] for entry in self.images.shard(number)]
        return hashlib.sha256(json_bytes([RULES, self.scale, self.images.digest, found])).hexdigest()

    def maps(self, entry: Entry) -> np.ndarray:
        """The maps f16[K, h, w] of an image. Raises ShardError naming the file."""
        if entry.key not in self.files:
            raise ShardError(f"{entry.key}.npy: not there; expected a map of every image")
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
class Left:
    """A sample without a usable map."""

    key: str
    reason: str


@dataclass(frozen=True)
class Quarantine:
    """What QUARANTINE says."""

    samples: list[Left]


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
    _prepare(folder, [source.stamp(number) for number in numbers])
    bad = _known_bad(folder)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = [_shard(source, number, folder, bad, skip_bad, pool) for number in numbers]
    if bad and not skip_bad:
        _leave(folder)
        raise ShardError(_explain(bad, len(photos)))
    reports = [report for report in found if report is not None]
    index = write_index(folder, kind="activation", classes=photos.classes, reports=reports)
    return Imported(index, tuple(bad.items()), others)


def find_maps(root: Path) -> dict[str, Path]:
    """The `.npy` files below a folder by the keys of their images. Raises ShardError when two have one key."""
    if not os.path.isdir(root):
        raise ShardError(f"{root}: no such folder; expected .npy files named after the images")
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*.npy")):
        key = key_of(path.relative_to(root).with_suffix("").as_posix())
        if key in found:
            raise ShardError(
                f"{printable(found[key], PLACE)} and {printable(path, PLACE)} both belong to {key}; keep one"
            )
        found[key] = path
    if not found:
        raise ShardError(f"{root}: holds no .npy files; expected KEY.npy for every image")
    return found


def _shard(
    source: MapFolder, number: int, folder: AnyPath, bad: dict[str, str], skip_bad: bool, pool: ThreadPoolExecutor
) -> ShardReport | None:
    """A shard's report, None when it has bad maps that stop the import. bad: reasons by key, brought up to date."""
    report, entries = read_report(folder, number), source.images.shard(number)
    if report is not None and (skip_bad or not any(entry.key in bad for entry in entries)):
        return report
    found = list(pool.map(lambda entry: _row(source, entry), entries))
    for entry, (_, fault) in zip(entries, found, strict=True):
        bad.pop(entry.key, None)
        bad |= {entry.key: fault} if fault else {}
    if not skip_bad and any(fault for _, fault in found):
        return None
    _quarantine(folder, bad)  # before the shard, so that none with an empty map is ever taken for whole
    return write_shard(folder, number, (row for row, _ in found))


def _row(source: MapFolder, entry: Entry) -> tuple[Row, str]:
    """A sample ready to be written and, where its map is of no use, why."""
    try:
        maps, fault = source.maps(entry), ""
    except ShardError as error:
        maps, fault = np.zeros((0, *grid_size(entry.height, entry.width)), np.float16), str(error)
    return (entry.key, (entry.height, entry.width), {FIELD: encode(FIELD, maps)}), fault


def _prepare(folder: AnyPath, stamps: Sequence[str]) -> None:
    """Make the folder ready: drop unfinished work of other inputs. Raises ShardError when it holds something else."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if names and not any(name.startswith(IMPORT) for name in names):
        raise ShardError(
            f"{folder}: holds other files ({printable(', '.join(names[:3]))}); choose an empty or new folder"
        )
    known = _known_stamps(folder)
    if known != list(stamps) and INDEX in names:
        raise ShardError(
            f"{folder}: holds finished maps of other files or settings; remove it or choose another folder"
        )
    clean_unfinished(folder)
    for path in folder.glob("[0-9]" * 6 + ".*"):
        number = int(path.stem)
        if known[number : number + 1] != list(stamps[number : number + 1]):
            path.unlink()
    commit_json(folder / IMPORT, {"format": RULES, "shards": list(stamps)})


def _known_stamps(folder: AnyPath) -> list[str]:
    try:
        found: Plan = read_json((folder / IMPORT).read_bytes(), Plan)
    except (OSError, ValueError):
        return []
    return found.shards


def _known_bad(folder: AnyPath) -> dict[str, str]:
    """Reasons by key of the maps an earlier import left out."""
    try:
        found: Quarantine = read_json((folder / QUARANTINE).read_bytes(), Quarantine)
    except (OSError, ValueError):
        return {}
    return {sample.key: sample.reason for sample in found.samples}


def _quarantine(folder: AnyPath, bad: Mapping[str, str]) -> None:
    if bad:
        listed = [{"key": key, "reason": reason} for key, reason in bad.items()]
        commit_json(folder / QUARANTINE, {"count": len(bad), "samples": listed})
    else:
        (folder / QUARANTINE).unlink(missing_ok=True)


def _explain(bad: Mapping[str, str], total: int) -> str:
    told = [f"[{key}] {printable(reason, 400)}" for key, reason in list(bad.items())[:LISTED]]
    more = f"; and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    return f"{len(bad)} of {total} maps are bad: {listed(told)}{more}. Mend them, or leave them out with --skip-bad"


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


def _leave(folder: AnyPath) -> None:
    # Finished shards spare the next try their work; a folder without any says nothing and goes.
    if not any(folder.glob("[0-9]*.json")):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
