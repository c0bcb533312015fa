"""A field that other code made, over an image set: shard by shard, so that a killed import goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from amn_dist.errors import PLACE, ShardError, printable
from amn_dist.shards.format import encode
from amn_dist.shards.index import Index, ShardReport
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.shards.writer import Row, read_report, write_index, write_shard
from data_shards.resumable import BadSample, ResumableSet, explain
from data_shards.source import key_of, stamp_of


class Overlay(Protocol):
    """What is laid over the images of a set. field: what it is written as. what: what messages call it."""

    @property
    def images(self) -> ShardSet: ...

    @property
    def field(self) -> str: ...

    @property
    def what(self) -> str: ...

    def stamp(self, number: int) -> str:
        """Changes when the inputs of a shard do."""
        ...

    def array(self, entry: Entry) -> np.ndarray:
        """What belongs to an image. Raises ShardError naming the file."""
        ...

    def empty(self, entry: Entry) -> np.ndarray:
        """What an image gets that nothing usable belongs to."""
        ...


@dataclass(frozen=True)
class Imported:
    """A finished import. bad: (key, reason) of images without anything usable. others: files, or entries of a file,
    that belong to no image."""

    index: Index
    bad: tuple[tuple[str, str], ...]
    others: int


def write_overlay(overlay: Overlay, making: ResumableSet, *, kind: str, skip_bad: bool, others: int) -> Imported:
    """Write a shard set of this kind over the images; the same call again resumes.

    skip_bad: an image without anything usable gets what is empty, and is listed in quarantine.json. Raises ShardError
    naming bad ones, or saying that the folder holds something else.
    """
    making.prepare()
    bad = {sample.key: sample.reason for sample in making.quarantined()}
    numbers = range(len(overlay.images.shard_sizes))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        written = [_shard(overlay, number, making, bad, skip_bad, pool) for number in numbers]
    if bad and not skip_bad:
        making.discard_if_empty()
        raise ShardError(explain(_samples(bad), len(overlay.images), overlay.what))
    reports = [report for report in written if report is not None]
    index = write_index(making.folder, kind=kind, classes=overlay.images.classes, reports=reports)
    return Imported(index, tuple(bad.items()), others)


def files_by_key(root: Path, ending: str) -> dict[str, Path]:
    """The files below a folder with this ending (`.npy`), by the keys of their images. Raises ShardError when two have
    one key."""
    if not os.path.isdir(root):
        raise ShardError(f"{root}: no such folder; expected {ending} files named after the images")
    files: dict[str, Path] = {}
    for path in sorted(root.rglob(f"*{ending}")):
        key = key_of(path.relative_to(root).with_suffix("").as_posix())
        if key in files:
            raise ShardError(
                f"{printable(files[key], PLACE)} and {printable(path, PLACE)} both belong to {key}; keep one"
            )
        files[key] = path
    if not files:
        raise ShardError(f"{root}: holds no {ending} files; expected KEY{ending} for every image")
    return files


def count_others(files: Mapping[str, Path], images: ShardSet, root: str | os.PathLike[str], ending: str) -> int:
    """How many files belong to no image. Raises ShardError when none does."""
    numbers = range(len(images.shard_sizes))
    others = files.keys() - {entry.key for number in numbers for entry in images.shard(number)}
    if len(others) == len(files):
        raise ShardError(
            f"{root}: none of {len(others)} files is named after an image of {images.url}; "
            f"found {min(others)}{ending}, expected such as {images.entry(0).key}{ending}"
        )
    return len(others)


def file_of(files: Mapping[str, Path], entry: Entry, ending: str, what: str) -> Path:
    """The file of an image. Raises ShardError where there is none."""
    if entry.key not in files:
        of = "" if entry.source is None else f", here of {printable(entry.source)}"
        raise ShardError(f"{entry.key}{ending}: not there; expected {what} of every image{of}")
    return files[entry.key]


def file_states(files: Mapping[str, Path], images: ShardSet, number: int) -> list[list[str]]:
    """Keys of a shard with a text each that changes when the image's file does."""
    keys = [entry.key for entry in images.shard(number)]
    return [[key, stamp_of([files[key]])[1] if key in files else "missing"] for key in keys]


def _shard(
    overlay: Overlay, number: int, making: ResumableSet, bad: dict[str, str], skip_bad: bool, pool: ThreadPoolExecutor
) -> ShardReport | None:
    """A shard's report, None when it has bad samples that stop the import. bad: reasons by key, brought up to date."""
    report, entries = read_report(making.folder, number), overlay.images.shard(number)
    if report is not None and (skip_bad or not any(entry.key in bad for entry in entries)):
        return report
    rows = list(pool.map(lambda entry: _row(overlay, entry), entries))
    for entry, (_, fault) in zip(entries, rows, strict=True):
        bad.pop(entry.key, None)
        bad |= {entry.key: fault} if fault else {}
    if not skip_bad and any(fault for _, fault in rows):
        return None
    making.quarantine(_samples(bad))  # before the shard, so that none that is empty is ever taken for whole
    return write_shard(making.folder, number, (row for row, _ in rows))


def _row(overlay: Overlay, entry: Entry) -> tuple[Row, str]:
    """A sample ready to be written and, where nothing of use belongs to it, why."""
    try:
        array, fault = overlay.array(entry), ""
    except ShardError as error:
        array, fault = overlay.empty(entry), str(error)
    return (entry.key, (entry.height, entry.width), {overlay.field: encode(overlay.field, array)}), fault


def _samples(bad: Mapping[str, str]) -> list[BadSample]:
    return [BadSample(key, reason) for key, reason in bad.items()]
