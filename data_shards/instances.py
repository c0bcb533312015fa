"""COCO's instances_SPLIT.json: read once into a table; outlines stay in the file, where any process reads its own."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import numpy as np

from amn_dist.documents import check_keys
from amn_dist.errors import ShardError, printable, quoted
from data_shards.classes import BACKGROUND, check_classes
from data_shards.source import relative, stamp_of

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Side = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]

ANNOTATION = np.dtype(
    [("id", "i8"), ("category", "i8"), ("label", "u1"), ("crowd", "?"), ("start", "i8"), ("stop", "i8")]
)
"""A row of the table. label: class id, 0 for a category that is not listed. start, stop: its outline in the file."""


class Listed(msgspec.Struct, frozen=True, gc=False):
    """An image as the file lists it. height, width: pixels."""

    id: Id
    file_name: str
    height: Side
    width: Side


class _Annotation(msgspec.Struct, frozen=True, gc=False):
    id: Id
    image_id: Id
    category_id: Id
    segmentation: msgspec.Raw = msgspec.Raw(b"")
    iscrowd: Literal[0, 1] = 0


class _Category(msgspec.Struct, frozen=True, gc=False):
    id: Id
    name: str


class _File(msgspec.Struct, frozen=True):
    images: list[Listed]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True, slots=True)
class Range:
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
    """What an annotation file says. classes: names in id order. annotations: ANNOTATION[N], by image.

    Those of an image stand in the file's order. bounds: int64[images + 1], where each image's begin.
    """

    file: Range
    classes: tuple[str, ...]
    images: tuple[Listed, ...]
    annotations: np.ndarray
    bounds: np.ndarray

    def of(self, position: int) -> np.ndarray:
        """The annotations of the image at a position of `images`."""
        return self.annotations[self.bounds[position] : self.bounds[position + 1]]


def read_instances(path: Path, classes: Sequence[str] | None = None) -> Instances:
    """Read an annotation file once. classes: names in id order; without them they are the file's categories by id.

    Raises ShardError naming the first damaged place, key, id or name that is listed twice, annotation of an unknown
    image, category without a class, or file name that leads outside.
    """
    stamp = stamp_of([path])[1]
    found, address = _decode(path)
    _check_names(found.images, path)
    names, labels = _classes(found.categories, classes, path)
    table, images = _table(found.annotations, labels, address), tuple(found.images)
    _check_keys(path, zip(table["start"].tolist(), table["stop"].tolist(), strict=True))
    image_ids = np.fromiter((listed.id for listed in images), np.int64, len(images))
    owners = np.fromiter((item.image_id for item in found.annotations), np.int64, len(table))
    for what, ids in (("image", image_ids), ("annotation", table["id"])):
        _check_unique(ids, what, path)
    positions = _positions(owners, image_ids, table["id"], path)
    order = np.argsort(positions, kind="stable")
    bounds = np.searchsorted(positions[order], np.arange(len(images) + 1))
    return Instances(Range(str(path), stamp), names, images, table[order], bounds)


@lru_cache(4)
def _opened(place: Range) -> BinaryIO:
    if stamp_of([Path(place.path)])[1] != place.stamp:
        raise ShardError(f"{place.path}: has changed since the shards were planned; start the same command again")
    return open(place.path, "rb")


def _decode(path: Path) -> tuple[_File, Callable[[Any], int]]:
    """The parsed file, and a function that says where in it a raw part begins."""
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise ShardError(f"{path}: is empty; expected COCO's instances as JSON")
            # Mapped, not read: its pages are the kernel's to drop.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = msgspec.json.decode(content, type=_File)
    except (OSError, ValueError, RecursionError) as error:
        cut = f" at byte {path.stat().st_size}, its end" if "truncated" in str(error) else ""
        raise ShardError(
            f"{path}: {printable(error)}{cut}; expected COCO's instances: images, annotations, categories"
        ) from error
    base = _address(content)
    return found, lambda part: _address(part) - base


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


def _table(found: list[_Annotation], labels: dict[int, int], address: Callable[[Any], int]) -> np.ndarray:
    table = np.empty(len(found), ANNOTATION)
    sizes = np.fromiter((memoryview(item.segmentation).nbytes for item in found), np.int64, len(found))
    starts = (address(item.segmentation) if size else 0 for item, size in zip(found, sizes, strict=True))
    table["id"] = np.fromiter((item.id for item in found), np.int64, len(found))
    table["category"] = np.fromiter((item.category_id for item in found), np.int64, len(found))
    table["label"] = np.fromiter((labels.get(item.category_id, 0) for item in found), np.uint8, len(found))
    table["crowd"] = np.fromiter((bool(item.iscrowd) for item in found), np.bool_, len(found))
    table["start"] = np.fromiter(starts, np.int64, len(found))
    table["stop"] = table["start"] + sizes
    return table


def _positions(owners: np.ndarray, image_ids: np.ndarray, annotation_ids: np.ndarray, path: Path) -> np.ndarray:
    """Positions of the annotations' images."""
    order = np.argsort(image_ids)
    slots = np.searchsorted(image_ids[order], owners)
    lost = np.append(image_ids[order], -1)[slots] != owners
    if lost.any():
        first = int(np.flatnonzero(lost)[0])
        raise ShardError(
            f"{path}: {lost.sum()} annotations are of images it does not list, first annotation "
            f"{annotation_ids[first]} of image {owners[first]}; list the images or drop the annotations"
        )
    return order[slots]


def _classes(
    categories: list[_Category], classes: Sequence[str] | None, path: Path
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names, and the class of every category id."""
    _check_unique(np.array([category.id for category in categories], np.int64), "category", path)
    listed = sorted((category.id, category.name.strip()) for category in categories)
    own = check_classes((BACKGROUND, *(name for _, name in listed)), where=f"{path}: categories")
    names = own if classes is None else tuple(classes)
    for number, name in listed:
        if name not in names[1:]:
            raise ShardError(
                f"{path}: category {number}, {quoted(name)}, is not among the {len(names) - 1} classes; "
                "add it to the list"
            )
    return names, {number: names.index(name) for number, name in listed}


def _check_unique(ids: np.ndarray, what: str, path: Path) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        first = int(np.flatnonzero(counts > 1)[0])
        raise ShardError(
            f"{path}: {what} id {values[first]} is a duplicate, listed {counts[first]} times; list it once"
        )


def _check_names(images: list[Listed], path: Path) -> None:
    first: dict[str, int] = {}
    for listed in images:
        if not relative(listed.file_name):
            raise ShardError(
                f"{path}: image {listed.id}: file_name {quoted(listed.file_name)} is not a relative path inside the "
                "folder of images"
            )
        name = PurePosixPath(listed.file_name).as_posix()  # of all its spellings
        if first.setdefault(name, listed.id) != listed.id:
            raise ShardError(f"{path}: images {first[name]} and {listed.id} are both {printable(name)}; list it once")
