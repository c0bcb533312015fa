"""Images in a folder and a table of their labels to shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from amn_dist.errors import ShardError
from amn_dist.farms.farm import Farm
from amn_dist.shards.index import Index
from amn_dist.shards.names import SourceFile
from amn_dist.storage.paths import RemotePath, path_of
from data_shards.allowances import STRICT, Allowances
from data_shards.classes import BACKGROUND, check_classes, multi_hot, read_classes
from data_shards.pack import pack
from data_shards.source import Content, PackSource, inside, key_of, named, on_disk, read_file, stamp_of
from data_shards.table import Labelled, collect_classes, read_table
from data_shards.tag_files import is_npy, read_vectors, rows_of


def pack_folder(
    root: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    out: str | os.PathLike[str] | RemotePath,
    *,
    classes: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    allow: Allowances = STRICT,
    shard_size: int | None = None,
    skip_bad: bool = False,
    farm: Farm | None = None,
) -> Index:
    """Pack the images a table lists. labels: CSV with the header `file,labels`, or JSON lines with these keys, or the
    `.npy` of a pickled dictionary from the names of images to their tags.

    Labels in a CSV are separated by ; or |. classes: file with names in id order, background first; without it they
    are the labels of the table, sorted. masks: folder with a truth mask for every image, at its path with .png.
    Raises ShardError naming bad samples; the same call again resumes.
    """
    for path in (root, masks):
        if path is not None and not os.path.isdir(path):
            raise ShardError(f"{path}: no such folder")
    folder, truth = Path(root).absolute(), None if masks is None else Path(masks).absolute()
    given = None if classes is None else read_classes(Path(classes), accept=allow.names)
    rows, names, notes = _labelled(folder, Path(labels), given, allow)
    if masks is not None and given is None:
        order = ", ".join(f"{name} {number}" for number, name in list(enumerate(names))[1:9])
        notes.append(f"without --classes the ids in masks are the labels of the table in their order: {order}")
    sources = [_source(folder, row, names, truth, Path(labels).name, allow.links) for row in rows]
    return pack(
        sources,
        path_of(out),
        classes=names,
        shard_size=shard_size,
        skip_bad=skip_bad,
        farm=farm,
        allow=allow,
        notes=notes,
    )


def _labelled(
    folder: Path, labels: Path, given: Sequence[str] | None, allow: Allowances
) -> tuple[tuple[Labelled, ...], tuple[str, ...], list[str]]:
    """Rows, class names, and what there is to say. given: the names that --classes lists."""
    if not is_npy(labels):
        rows = read_table(labels)
        return rows, tuple(given or collect_classes(rows, labels, accept=allow.names)), []
    vectors = read_vectors(labels, len(given) - 1 if given else None)
    size = len(next(iter(vectors.values())))
    numbered = (BACKGROUND, *(f"class_{number}" for number in range(1, size + 1)))
    names = tuple(given or check_classes(numbered, where=str(labels)))
    notes = (
        []
        if given
        else [f"{labels.name} numbers its classes; they are called class_1 to class_{size}, or as --classes FILE says"]
    )
    rows, left = rows_of(vectors, folder, names, labels)
    if left:
        notes.append(f"{left} of {len(vectors)} keys of {labels.name} belong to no photograph below {folder}")
    return rows, names, notes


def _source(
    root: Path, row: Labelled, classes: tuple[str, ...], masks: Path | None, table: str, links: bool
) -> PackSource:
    file = on_disk(root, row.file)
    stem = PurePosixPath(row.file).with_suffix("").as_posix()
    mask = None if masks is None else on_disk(masks, f"{stem}.png")
    shown = f"{masks.name}/{mask}" if masks is not None else ""
    size, stamp = stamp_of([root / file] if masks is None or mask is None else [root / file, masks / mask])
    stamp = f"{';'.join(sorted(row.labels))};{stamp}"
    read = partial(_read, root, file, row, classes, masks, mask, shown, table, links)
    return PackSource(key_of(stem), row.file, size, stamp, read, shown, SourceFile(file))


def _read(
    root: Path,
    file: str,
    row: Labelled,
    classes: tuple[str, ...],
    masks: Path | None,
    mask: str | None,
    shown: str,
    table: str,
    links: bool,
) -> Content:
    photo = read_file(inside(root, file, links=links), row.file)
    with named(f"{table}: line {row.line}"):
        tags = multi_hot(row.labels, classes)
    if masks is None or mask is None:
        return Content(photo, tags, None)
    return Content(photo, tags, read_file(inside(masks, mask, links=links), shown))
