"""Every byte of a shard set against its reports and its index."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from amn_dist.errors import PLACE, ShardError, listed, printable
from amn_dist.shards.format import PHOTOS, decode, kind_of
from amn_dist.shards.index import INDEX, Index, SampleLocation, ShardReport, make_index, parse
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.tarcheck import Member, check_open_tar, check_samples, check_tar
from amn_dist.storage.paths import AnyPath, RemotePath, is_file, path_of
from data_shards.photo import Photo, check_photo, check_truth


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found in order. bytes: of the tars. decoded: whether samples were, or only headers were looked at.

    plain: fields that are no pictures or arrays, so that their bytes alone were compared.
    """

    place: str
    kind: str
    shards: int
    samples: int
    bytes: int
    fields: tuple[str, ...]
    decoded: bool
    plain: tuple[str, ...] = ()

    def __str__(self) -> str:
        depth = "every sample read and decoded" if self.decoded else "headers only, there is no index to check against"
        if self.plain:
            depth = f"every sample read; not decoded, only compared with the digest: {' '.join(self.plain)}"
        return (
            f"{self.place}: {self.samples} samples in {self.shards} shards ({self.bytes} bytes), kind {self.kind}, "
            f"fields {' '.join(self.fields)}: in order ({depth})"
        )


def verify(place: str | os.PathLike[str] | RemotePath) -> Verified:
    """Check a shard set in full; a tar, or a folder of tars without an index, by its headers.

    Raises ShardError listing the faults.
    """
    path = path_of(place)
    if is_file(path / INDEX):
        return _verify_set(path)
    if isinstance(path, RemotePath):
        raise ShardError(f"{path}: holds no {INDEX}; tars of somebody else are looked at on this machine only")
    tars = [path] if is_file(path) else sorted(path.glob("*.tar")) if os.path.isdir(path) else []
    if not tars:
        raise ShardError(f"{path}: neither a tar nor a folder with {INDEX} or tars")
    return _verify_foreign(path, tars)


def _verify_set(folder: AnyPath) -> Verified:
    shards = ShardSet.open(folder)
    index = shards.index
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        checked = list(pool.map(lambda number: _check_shard(folder, index, number), range(len(index.shards))))
    faults = [fault for _, shard_faults in checked for fault in shard_faults]
    reports = [report for report, _ in checked if report is not None]
    if len(reports) == len(index.shards):
        faults += _check_index(index, reports)
    if faults:
        raise ShardError(f"{folder}: {len(faults)} faults: {listed(faults)}")
    total = sum(shard.bytes for shard in index.shards)
    plain = tuple(field for field in index.fields if field not in PHOTOS and kind_of(field) is None)
    return Verified(str(folder), index.kind, len(index.shards), len(shards), total, index.fields, True, plain)


def _verify_foreign(place: Path, tars: list[Path]) -> Verified:
    faults: list[str] = []
    members: list[Member] = []
    for tar in tars:
        try:
            members += check_tar(tar)
        except ShardError as error:
            faults.append(str(error))
    if not faults:
        try:
            samples = check_samples(tuple(members))
        except ShardError as error:
            faults.append(f"{place}: {error}")
    if faults:
        raise ShardError(listed(faults))
    fields = tuple(sorted({member.field for member in members}))
    total = sum(tar.stat().st_size for tar in tars)
    return Verified(str(place), "foreign", len(tars), len(samples), total, fields, decoded=False)


def _check_index(index: Index, reports: list[ShardReport]) -> list[str]:
    try:
        same = make_index(index.kind, index.classes, reports, index.source_ids) == index
    except ShardError as error:
        return [str(error)]
    return [] if same else [f"{INDEX}: does not follow from the reports; make the set again"]


def _check_shard(folder: AnyPath, index: Index, number: int) -> tuple[ShardReport | None, list[str]]:
    shard = index.shards[number]
    tar = folder / shard.name
    faults: list[str] = []
    report = None
    try:
        name = tar.with_suffix(".json").name
        report = parse(ShardReport, name, (folder / name).read_bytes())
        with _opened(tar) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != shard.sha256:
                faults.append(f"{shard.name}: sha256 is {digest[:12]}..., expected {shard.sha256[:12]}...")
            if report.sha256 != shard.sha256:
                faults.append(f"{name}: describes another tar than {INDEX} lists")
            faults += _check_members(report, check_open_tar(file, where=str(tar)))
            for sample in report.samples:
                faults += _check_sample(file, report.name, sample, index)
    except ShardError as error:
        faults.append(str(error))
    except OSError as error:
        faults.append(f"{printable(error.filename or tar, PLACE)}: cannot be read ({printable(error)})")
    return report, faults


def _check_members(report: ShardReport, members: tuple[Member, ...]) -> Iterator[str]:
    in_report = {f"{sample.key}.{name}": span for sample in report.samples for name, span in sample.fields.items()}
    in_tar = {member.name: (member.offset, member.size) for member in members}
    for name in sorted(in_report.keys() | in_tar.keys()):
        if in_report.get(name) != in_tar.get(name):
            difference = f"is at {in_tar.get(name)} in the tar, at {in_report.get(name)} in the report"
            yield f"{report.name}: {printable(name)} {difference}"


def _opened(tar: AnyPath) -> io.BufferedReader | io.BytesIO:
    return io.BytesIO(tar.read_bytes()) if isinstance(tar, RemotePath) else open(tar, "rb")


def _check_sample(file: BinaryIO, tar: str, sample: SampleLocation, index: Index) -> Iterator[str]:
    photo = Photo("", sample.height, sample.width)
    for name, (offset, size) in sample.fields.items():
        try:
            file.seek(offset)
            _check_field(name, file.read(size), photo, index)
        except ShardError as error:
            yield f"{tar}: {printable(f'{sample.key}.{name}')}: {error}"


def _check_field(name: str, content: bytes, expected: Photo, index: Index) -> None:
    if name in PHOTOS:
        photo = check_photo(content)
        if (photo.height, photo.width) != (expected.height, expected.width):
            raise ShardError(
                f"is {photo.width}x{photo.height}, the report says {expected.width}x{expected.height} (width x height)"
            )
        if photo.field != name:
            raise ShardError(f"holds a {photo.field}")
    elif name == "gt.png":
        check_truth(content, expected, len(index.classes))
    elif kind := kind_of(name):
        array = decode(name, content)
        if kind == "tags" and array.size != len(index.classes) - 1:
            raise ShardError(f"holds {array.size} tags for {len(index.classes)} classes; expected one less")
        if kind == "masks" and array[:2].tolist() != [expected.height, expected.width]:
            of = f"{array[1]}x{array[0]} pixels, the report says {expected.width}x{expected.height} (width x height)"
            raise ShardError(f"holds masks of {of}")
