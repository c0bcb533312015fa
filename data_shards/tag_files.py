"""Files of tags beside a data set: WSSS code's cls_labels.npy, or a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from amn_dist.errors import PLACE, ShardError, listed, printable, quoted
from amn_dist.shards.names import relative
from amn_dist.shards.photographs import ENDINGS
from data_shards.classes import multi_hot
from data_shards.pickles import read_pickled_dict
from data_shards.source import named, read_file
from data_shards.table import Labelled, read_table


def read_tags(path: Path, names: Sequence[str], classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Tags uint8[C-1] of images by their names, without endings; those the file lacks are left out.

    path: an `.npy` of a pickled dictionary, from name or from its digits as a number, as VOC's 2007000032 is of
    2007_000032, to numbers 0 and 1 [C-1]; or a table of files and labels. Nothing in it is executed. Raises ShardError
    naming the file and what does not fit.
    """
    if is_npy(path):
        return match(read_vectors(path, len(classes) - 1), names, path)
    tags = {}
    wanted = set(names)
    for row in read_table(path):
        stem = PurePosixPath(row.file).with_suffix("").as_posix()
        for name in {stem, PurePosixPath(stem).name, row.file} & wanted:
            with named(f"{path}: line {row.line}"):
                tags[name] = multi_hot(row.labels, classes)
    return tags


def is_npy(path: Path) -> bool:
    """Whether a file is said to be NumPy's."""
    return path.suffix.lower() == ".npy"


def read_vectors(path: Path, classes: int | None = None) -> dict[int | str, np.ndarray]:
    """Multi-hot uint8[C-1] by key of a pickled dictionary. classes: C - 1, where it is known."""
    content = read_file(path, str(path))
    with named(printable(path, PLACE)):
        vectors = {key: _vector(key, value) for key, value in read_pickled_dict(content).items()}
        if not vectors:
            raise ShardError("holds an empty dictionary; expected the tags of images")
        sizes = sorted({len(vector) for vector in vectors.values()})
        if len(sizes) != 1 or (classes is not None and sizes != [classes]):
            expected = f"{classes}, one a class without background" if classes else "as many for every image"
            raise ShardError(f"holds {listed(sizes[:4])} tags an image; expected {expected}")
    return vectors


def match(vectors: Mapping[int | str, np.ndarray], names: Iterable[str], path: Path) -> dict[str, np.ndarray]:
    """The vectors of names, by the name itself or by its digits. Raises ShardError when two names have one vector."""
    tags: dict[str, np.ndarray] = {}
    name_of: dict[int, str] = {}
    for name in names:
        if name in vectors:
            tags[name] = vectors[name]
        elif (number := _digits(name)) is not None and number in vectors:
            if number in name_of:
                raise ShardError(
                    f"{path}: key {number} is that of both {quoted(name_of[number])} and {quoted(name)}; use names as "
                    "keys"
                )
            name_of[number] = name
            tags[name] = vectors[number]
    return tags


def rows_of(
    vectors: Mapping[int | str, np.ndarray], root: Path, classes: Sequence[str], path: Path
) -> tuple[tuple[Labelled, ...], int]:
    """The photographs below a folder whose names are keys, labelled, and how many keys have none."""
    files: dict[str, str] = {}
    for file in sorted(root.rglob("*")):
        name = file.relative_to(root).as_posix()
        if file.suffix.lower() not in ENDINGS or not relative(name):
            continue
        if files.setdefault(file.stem, name) != name:
            raise ShardError(
                f"{path}: {printable(files[file.stem], PLACE)} and {printable(name, PLACE)} both belong to the key "
                f"{quoted(file.stem)}; write a table of files and labels"
            )
    tags = match(vectors, files, path)
    if not tags:
        key = next(iter(vectors))
        raise ShardError(f"{path}: none of {len(vectors)} keys, such as {quoted(key)}, is a photograph below {root}")
    rows = [
        Labelled(files[name], tuple(classes[int(number) + 1] for number in np.flatnonzero(vector)), 0)
        for name, vector in tags.items()
    ]
    return tuple(rows), len(vectors) - len(tags)


def _digits(name: str) -> int | None:
    digits = "".join(letter for letter in name if letter in "0123456789")
    return int(digits) if 0 < len(digits) <= 18 else None


def _vector(key: int | str, value: object) -> np.ndarray:
    try:
        vector = np.asarray(value)
    except ValueError:
        vector = np.zeros(0, object)
    if vector.ndim != 1 or not vector.size or vector.dtype.kind not in "biuf" or not np.isin(vector, (0, 1)).all():
        raise ShardError(f"key {quoted(key)}: expected tags 0 and 1 of every class")
    return vector.astype(np.uint8)
