"""Samples to shards. A shard is done when its report is there, a set when its index is."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from webdataset import TarWriter

from amn_dist.errors import ShardError, StageError, printable
from amn_dist.shards.format import check_field, check_key
from amn_dist.shards.index import INDEX, Index, SampleLocation, ShardReport, make_index, parse, record_bytes
from amn_dist.shards.names import SourceFile
from amn_dist.storage.atomic import clean_unfinished, commit
from amn_dist.storage.folders import CONCURRENCY
from amn_dist.storage.paths import AnyPath, RemotePath, path_of

__all__ = ["clean_unfinished", "index_all", "read_report", "read_reports", "shard_name", "write_index", "write_shard"]

Folder = str | os.PathLike[str] | RemotePath
"""A local path or a URL."""
Row = tuple[str, tuple[int, int], Mapping[str, bytes]]
"""A sample: key, (height, width) of the upright image in pixels, bytes by field."""


def shard_name(number: int) -> str:
    """Name of a shard's tar."""
    return f"{number:06d}.tar"


def write_shard(
    folder: Folder, number: int, samples: Iterable[Row], *, sources: Mapping[str, SourceFile] | None = None
) -> ShardReport:
    """Write samples, in order, as one tar and then its report; an older shard of that number is replaced.

    sources: what samples were made from, by key; the report says it. The bytes of the tar depend on the samples alone.
    Raises ShardError naming the file when it cannot be written; a shard is then
    either the old one or not done.
    """
    path = path_of(folder) / shard_name(number)
    stream = io.BytesIO()
    locations = _fill(stream, path, samples, sources or {})
    digest = hashlib.sha256(stream.getbuffer()).hexdigest()
    size = stream.getbuffer().nbytes
    report = ShardReport(name=path.name, sha256=digest, bytes=size, samples=tuple(locations), count=len(locations))
    text = record_bytes(report)
    _retire(path.with_suffix(".json"), text)
    commit(path, stream.getbuffer())
    commit(path.with_suffix(".json"), text)
    return report


def read_report(folder: Folder, number: int) -> ShardReport | None:
    """The report of a finished shard; None when it is absent or damaged, or its tar missing or of another size.

    Raises ShardError when storage behind a URL refuses or does not answer.
    """
    path = path_of(folder) / shard_name(number)
    try:
        text = path.with_suffix(".json").read_bytes()
        size = path.size() if isinstance(path, RemotePath) else path.stat().st_size
    except OSError:
        return None
    return _sound(path, text, size)


def read_reports(folder: Folder, count: int) -> Iterator[ShardReport | None]:
    """The reports of the first `count` shards, each as by read_report; behind a URL several at a time."""
    root = path_of(folder)
    if isinstance(root, Path):
        yield from (read_report(root, number) for number in range(count))
        return
    sizes = root.children()[0]

    def read(number: int) -> ShardReport | None:
        path = root / shard_name(number)
        report = path.with_suffix(".json")
        missing = path.name not in sizes or report.name not in sizes
        return None if missing else _sound(path, report.read_bytes(), sizes[path.name])

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for start in range(0, count, CONCURRENCY):
            yield from pool.map(read, range(start, min(start + CONCURRENCY, count)))


def _sound(path: AnyPath, text: bytes, size: int) -> ShardReport | None:
    """A report, unless it is damaged or not of this tar."""
    try:
        report = parse(ShardReport, str(path), text)
    except ShardError:
        return None
    return report if (report.name, report.bytes) == (path.name, size) else None


def write_index(
    folder: Folder,
    *,
    kind: str,
    classes: Sequence[str],
    reports: Iterable[ShardReport],
    source_ids: Sequence[int | None] | None = None,
) -> Index:
    """Write index.json over the shards of a folder: the set is now complete.

    kind: `images` or the stage that made it. classes: names in id order, background first. reports: of its shards, in
    order; they may be read one by one. source_ids: of the classes, where the source has ids of its own.
    Raises ShardError when keys repeat or samples differ in their fields.
    """
    try:
        index = make_index(kind, classes, reports, source_ids)
    except ShardError as error:
        raise ShardError(f"{folder}: {error}") from error
    clean_unfinished(folder)  # of workers that died on the way
    commit(path_of(folder) / INDEX, record_bytes(index))
    return index


def index_all(folder: Folder, *, kind: str, classes: Sequence[str], count: int) -> Index:
    """As write_index, over the first `count` shards. Raises StageError when one of them is not there."""

    def reports() -> Iterator[ShardReport]:
        for number, report in enumerate(read_reports(folder, count)):
            if report is None:
                raise StageError(f"{folder}: shard {number} is missing after all were done; run again")
            yield report

    return write_index(folder, kind=kind, classes=classes, reports=reports())


def _fill(
    stream: io.BytesIO, path: AnyPath, samples: Iterable[Row], sources: Mapping[str, SourceFile]
) -> list[SampleLocation]:
    locations: dict[str, SampleLocation] = {}
    # PAX only shows for names above 100 characters; for all others the bytes are plain ustar.
    with TarWriter(stream, user="amn", group="amn", mode=0o644, mtime=0, encoder=False, format="PAX_FORMAT") as tar:
        for key, (height, width), fields in samples:
            if check_key(key) in locations:
                raise ShardError(f"{path}: key {key} comes twice; keys are unique in a set")
            spans = {field: _add(tar, key, field, bytes(fields[field])) for field in sorted(fields)}
            name, source_id = sources.get(key, (None, None))
            locations[key] = SampleLocation(
                key=key, height=int(height), width=int(width), fields=spans, source=name, source_id=source_id
            )
    return list(locations.values())


def _add(tar: TarWriter, key: str, field: str, content: bytes) -> tuple[int, int]:
    tar.write({"__key__": key, check_field(field): content})
    return tar.tarstream.offset - -(-len(content) // 512) * 512, len(content)


def _retire(report: AnyPath, text: bytes) -> None:
    # Else a crash between tar and report would leave the old report beside the new tar.
    try:
        if report.is_file() and report.read_bytes() != text:
            report.unlink()
    except OSError as error:
        raise ShardError(f"{report}: cannot be replaced ({printable(error)})") from error
