"""Images in a folder and a table of their labels to shards."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from amn_dist.documents import read_json
from amn_dist.errors import ShardError, printable, quoted
from amn_dist.farms.farm import Farm
from amn_dist.shards.index import MAX_CLASS, Index
from amn_dist.shards.names import SourceFile, relative
from amn_dist.storage.paths import RemotePath, path_of
from data_shards.classes import BACKGROUND, check_classes, multi_hot, read_classes
from data_shards.pack import pack
from data_shards.source import (
    Content,
    PackSource,
    inside,
    key_of,
    lines_of,
    named,
    read_file,
    read_text,
    stamp_of,
)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A row of the table. file: relative to the root, with slashes. line: where it stands."""

    file: str
    labels: tuple[str, ...]
    line: int


def pack_folder(
    root: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    out: str | os.PathLike[str] | RemotePath,
    *,
    classes: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    shard_size: int | None = None,
    skip_bad: bool = False,
    farm: Farm | None = None,
) -> Index:
    """Pack the images a table lists. labels: CSV with the header `file,labels`, or JSON lines with these keys.

    Labels in a CSV are separated by ; or |. classes: file with names in id order, background first; without it they
    are the labels of the table, sorted. masks: folder with a truth mask for every image, at its path with .png.
    Raises ShardError naming bad samples; the same call again resumes.
    """
    for path in (root, masks):
        if path is not None and not os.path.isdir(path):
            raise ShardError(f"{path}: no such folder")
    rows = read_table(Path(labels))
    names = read_classes(Path(classes)) if classes is not None else collect_classes(rows, Path(labels))
    table = Path(labels).name
    folder, truth = Path(root).absolute(), None if masks is None else Path(masks).absolute()
    sources = [_source(folder, row, names, truth, table) for row in rows]
    return pack(sources, path_of(out), classes=names, shard_size=shard_size, skip_bad=skip_bad, farm=farm)


def read_table(path: Path) -> tuple[Labelled, ...]:
    """The rows of a label table, in order. Raises ShardError naming file, line and fault."""
    text = read_text(path)
    listed = _json_rows(text, path) if text.lstrip().startswith("{") else _csv_rows(text, path)
    lines: dict[str, int] = {}
    rows = []
    for row in listed:
        where = f"{path}: line {row.line}"
        if not relative(row.file):
            raise ShardError(f"{where}: file {quoted(row.file)} is not a relative path inside the folder of images")
        unfit = next((label for label in row.labels if not label.isprintable() or len(label) > MAX_CLASS), None)
        if unfit is not None:
            raise ShardError(f"{where}: label {quoted(unfit)}, expected at most {MAX_CLASS} printable characters")
        file = PurePosixPath(row.file).as_posix()
        if file in lines:
            raise ShardError(f"{where}: {printable(file)} is a duplicate of line {lines[file]}; list it once")
        lines[file] = row.line
        rows.append(Labelled(file, row.labels, row.line))
    if not rows:
        raise ShardError(f"{path}: lists no images; expected rows of file and labels")
    return tuple(rows)


def collect_classes(rows: tuple[Labelled, ...], path: Path) -> tuple[str, ...]:
    """Background and the labels of a table, sorted."""
    names = sorted({label for row in rows for label in row.labels})
    if BACKGROUND in names:
        raise ShardError(f"{path}: {BACKGROUND!r} is used as a label; it is id 0 of every set, leave it out")
    return check_classes((BACKGROUND, *names), where=str(path))


def _csv_rows(text: str, path: Path) -> Iterator[Labelled]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if header != ["file", "labels"]:
            raise ShardError(f"{path}: line 1: found {quoted(','.join(header))}, expected the header 'file,labels'")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != 2:
                raise ShardError(
                    f"{path}: line {reader.line_num}: found {len(cells)} columns, expected 2; "
                    "labels are separated by ; or |"
                )
            labels = (label.strip() for label in cells[1].replace("|", ";").split(";"))
            yield Labelled(cells[0].strip(), tuple(label for label in labels if label), reader.line_num)
    except csv.Error as error:
        raise ShardError(f"{path}: line {reader.line_num}: {printable(error)}; expected CSV") from error


def _json_rows(text: str, path: Path) -> Iterator[Labelled]:
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        try:
            row = read_json(line)
        except ValueError as error:
            raise ShardError(f"{path}: line {number}: {printable(error)}; expected one JSON object a line") from error
        file, labels = (row.get("file"), row.get("labels")) if isinstance(row, dict) else (None, None)
        listed = isinstance(labels, list) and all(isinstance(label, str) and label.strip() for label in labels)
        if not isinstance(file, str) or not isinstance(labels, list) or not listed:
            raise ShardError(f'{path}: line {number}: expected {{"file": "...", "labels": ["...", ...]}}')
        yield Labelled(file, tuple(label.strip() for label in labels), number)


def _source(root: Path, row: Labelled, classes: tuple[str, ...], masks: Path | None, table: str) -> PackSource:
    stem = PurePosixPath(row.file).with_suffix("").as_posix()
    mask = None if masks is None else masks / f"{stem}.png"
    shown = f"{masks.name}/{stem}.png" if masks is not None else ""
    size, stamp = stamp_of([root / row.file] if mask is None else [root / row.file, mask])
    stamp = f"{';'.join(sorted(row.labels))};{stamp}"
    read = partial(_read, root, row, classes, mask, shown, table)
    return PackSource(key_of(stem), row.file, size, stamp, read, shown, SourceFile(row.file))


def _read(root: Path, row: Labelled, classes: tuple[str, ...], mask: Path | None, shown: str, table: str) -> Content:
    photo = read_file(inside(root, row.file), row.file)
    with named(f"{table}: line {row.line}"):
        tags = multi_hot(row.labels, classes)
    return Content(photo, tags, None if mask is None else read_file(mask, shown))
