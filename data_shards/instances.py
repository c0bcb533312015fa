"""COCO's instances_SPLIT.json: read once into a table; outlines stay in the file, where any process reads its own."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from amn_dist.documents import check_keys
from amn_dist.errors import ShardError, printable, quoted
from amn_dist.shards.names import relative, spelling
from data_shards.classes import BACKGROUND, check_classes, is_background
from data_shards.coco_records import CocoAnnotation, CocoCategory, CocoFile, CocoImage, parse_instances
from data_shards.source import stamp_of

ANNOTATION = np.dtype(
    [("id", "i8"), ("category", "i8"), ("label", "u1"), ("crowd", "?"), ("start", "i8"), ("stop", "i8")]
)
"""A row of the table. label: class id, 0 for background, or UNLISTED. start, stop: its outline in the file."""
UNLISTED = 255
"""The label of a category that is not listed; no class has it."""


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """A file whose ranges are read. stamp: its size and time, so that another file in its place is noticed."""

    path: str
    stamp: str

    def read(self, spans: Iterable[tuple[int, int]]) -> list[bytes]:
        """The bytes start to stop of every span. Raises ShardError when the file has changed."""
        try:
            file = _opened(self)
            return [os.pread(file.fileno(), stop - start, start) for start, stop in spans]
        except OSError as error:
            raise ShardError(f"{self.path}: cannot be read ({printable(error)})") from error


@dataclass(frozen=True, slots=True)
class Instances:
    """What an annotation file says. classes: names in id order. source_ids: the file's ids of the classes, None for a
    class it does not have. annotations: ANNOTATION[N], by image.

    Those of an image stand in the file's order. bounds: int64[images + 1], where each image's begin.
    """

    file: AnnotationFile
    classes: tuple[str, ...]
    source_ids: tuple[int | None, ...]
    images: tuple[CocoImage, ...]
    annotations: np.ndarray
    bounds: np.ndarray

    def of(self, position: int) -> np.ndarray:
        """The annotations of the image at a position of `images`."""
        return self.annotations[self.bounds[position] : self.bounds[position + 1]]


def read_instances(path: Path, classes: Sequence[str] | None = None, *, accept: bool = False) -> Instances:
    """Read an annotation file once. classes: names in id order; without them they are the file's categories by id. A
    category 0 named background is background. accept: take names that look like mistakes.

    Raises ShardError naming the first damaged place, key, id or name that is listed twice, annotation of an unknown
    image, category without a class, or file name that leads outside.
    """
    stamp = stamp_of([path])[1]
    parsed, address = _decode(path)
    images = tuple(parsed.images)
    _check_names(images, path)
    names, labels = _classes(parsed.categories, classes, path, accept)
    table = _table(parsed.annotations, labels, address)
    _check_keys(path, zip(table["start"].tolist(), table["stop"].tolist(), strict=True))
    image_ids = np.fromiter((listed.id for listed in images), np.int64, len(images))
    owners = np.fromiter((annotation.image_id for annotation in parsed.annotations), np.int64, len(table))
    for what, ids in (("image", image_ids), ("annotation", table["id"])):
        _check_unique(ids, what, path)
    positions = _positions(owners, image_ids, table["id"], path)
    order = np.argsort(positions, kind="stable")
    bounds = np.searchsorted(positions[order], np.arange(len(images) + 1))
    number_of = {label: number for number, label in labels.items()}
    source_ids = tuple(number_of.get(label) for label in range(len(names)))
    return Instances(AnnotationFile(str(path), stamp), names, source_ids, images, table[order], bounds)


@lru_cache(4)
def _opened(file: AnnotationFile) -> BinaryIO:
    if stamp_of([Path(file.path)])[1] != file.stamp:
        raise ShardError(f"{file.path}: has changed since the shards were planned; start the same command again")
    return open(file.path, "rb")


def _decode(path: Path) -> tuple[CocoFile, Callable[[Any], int]]:
    """The parsed file, and a function that says where in it a raw part begins."""
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise ShardError(f"{path}: is empty; expected COCO's instances as JSON")
            # Mapped, not read: its pages are the kernel's to drop.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        parsed = parse_instances(content)
    except (OSError, ValueError, RecursionError) as error:
        cut = f" at byte {path.stat().st_size}, its end" if "truncated" in str(error) else ""
        raise ShardError(
            f"{path}: {printable(error)}{cut}; expected COCO's instances: images, annotations, categories"
        ) from error
    base = _address(content)
    return parsed, lambda part: _address(part) - base


def _check_keys(path: Path, outlines: Iterable[tuple[int, int]]) -> None:
    """Raise ShardError when an object has a key twice, of which the decoder takes the last. outlines: in the file's
    order; they are most of it, and looked at when they are drawn."""
    at, parts = 0, []
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for start, stop in outlines:
                if start < stop:
                    parts.append(content[at:start])
                    at = stop
            parts.append(content[at:])
        check_keys(b"0".join(parts).decode())
    except (OSError, ValueError) as error:
        raise ShardError(f"{path}: {printable(error)}") from error


def _address(buffer: Any) -> int:
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0])


def _table(annotations: list[CocoAnnotation], labels: dict[int, int], address: Callable[[Any], int]) -> np.ndarray:
    count = len(annotations)
    table = np.empty(count, ANNOTATION)
    sizes = np.fromiter((memoryview(row.segmentation).nbytes for row in annotations), np.int64, count)
    starts = (address(row.segmentation) if size else 0 for row, size in zip(annotations, sizes, strict=True))
    table["id"] = np.fromiter((row.id for row in annotations), np.int64, count)
    table["category"] = np.fromiter((row.category_id for row in annotations), np.int64, count)
    table["label"] = np.fromiter((labels.get(row.category_id, UNLISTED) for row in annotations), np.uint8, count)
    table["crowd"] = np.fromiter((bool(row.iscrowd) for row in annotations), np.bool_, count)
    table["start"] = np.fromiter(starts, np.int64, count)
    table["stop"] = table["start"] + sizes
    return table


def _positions(owners: np.ndarray, image_ids: np.ndarray, annotation_ids: np.ndarray, path: Path) -> np.ndarray:
    """Positions of the annotations' images."""
    order = np.argsort(image_ids)
    slots = np.searchsorted(image_ids[order], owners)
    orphans = np.append(image_ids[order], -1)[slots] != owners
    if orphans.any():
        first = int(np.flatnonzero(orphans)[0])
        raise ShardError(
            f"{path}: {orphans.sum()} annotations are of images it does not list, first annotation "
            f"{annotation_ids[first]} of image {owners[first]}; list the images or drop the annotations"
        )
    return order[slots]


def _classes(
    categories: list[CocoCategory], classes: Sequence[str] | None, path: Path, accept: bool
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names, and the class of every category id."""
    _check_unique(np.array([category.id for category in categories], np.int64), "category", path)
    listed = sorted((category.id, category.name.strip()) for category in categories)
    background = {number: 0 for number, name in listed if number == 0 and is_background(name)}
    listed = [(number, name) for number, name in listed if number not in background]
    accept = accept or classes is not None
    category_names = check_classes(
        (BACKGROUND, *(name for _, name in listed)), where=f"{path}: categories", accept=accept
    )
    names = category_names if classes is None else tuple(classes)
    number_of = {spelling(name): number for number, name in enumerate(names) if number}
    for number, name in listed:
        if spelling(name) not in number_of:
            raise ShardError(
                f"{path}: category {number}, {quoted(name)}, is not among the {len(names) - 1} classes; "
                "add it to the list"
            )
    return names, background | {number: number_of[spelling(name)] for number, name in listed}


def _check_unique(ids: np.ndarray, what: str, path: Path) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        position = int(np.flatnonzero(counts > 1)[0])
        raise ShardError(
            f"{path}: {what} id {values[position]} is a duplicate, listed {counts[position]} times; list it once"
        )


def _check_names(images: Sequence[CocoImage], path: Path) -> None:
    id_of: dict[str, int] = {}
    for listed in images:
        if not relative(listed.file_name):
            raise ShardError(
                f"{path}: image {listed.id}: file_name {quoted(listed.file_name)} is not a relative path inside the "
                "folder of images"
            )
        name = PurePosixPath(listed.file_name).as_posix()  # of all its spellings
        if id_of.setdefault(name, listed.id) != listed.id:
            raise ShardError(f"{path}: images {id_of[name]} and {listed.id} are both {printable(name)}; list it once")
