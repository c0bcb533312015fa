"""COCO layout to shards: ROOT/SPLIT/*.jpg and ROOT/annotations/instances_SPLIT.json."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from amn_dist.errors import ShardError, printable
from amn_dist.farms.farm import Farm
from amn_dist.shards.index import Index
from amn_dist.shards.names import SourceFile
from amn_dist.storage.paths import RemotePath, path_of
from data_shards.allowances import STRICT, Allowances
from data_shards.classes import read_classes
from data_shards.instances import UNLISTED, AnnotationFile, CocoImage, Instances, read_instances
from data_shards.outlines import draw, paint, read_outline
from data_shards.pack import pack
from data_shards.source import Content, PackSource, check_split, inside, key_of, named, on_disk, read_file, stamp_of

SHORTEST = len("[[0,0,1,0,0,1]]")
"""Bytes of the least outline there can be."""


@dataclass(frozen=True, slots=True)
class CocoReader:
    """What the samples of a set have in common. clip: cut outlines that leave their picture. truth: paint them."""

    folder: Path
    file: AnnotationFile
    classes: int
    clip: bool
    truth: bool
    links: bool = False

    def read(self, listed: CocoImage, annotations: np.ndarray) -> Content:
        """A sample: its picture as it is, its tags, its truth. annotations: ANNOTATION[n] of the image."""
        photo = read_file(
            inside(self.folder, on_disk(self.folder, listed.file_name), links=self.links), listed.file_name
        )
        with named(Path(self.file.path).name):
            tags = _tags(annotations, self.classes)
            truth = self._truth(listed, annotations) if self.truth else None
        return Content(photo, tags, truth)

    def _truth(self, listed: CocoImage, annotations: np.ndarray) -> np.ndarray:
        size = (listed.height, listed.width)
        return paint(size, self._masks(annotations[~annotations["crowd"]], size))

    def _masks(self, annotations: np.ndarray, size: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
        raw = self.file.read(zip(annotations["start"].tolist(), annotations["stop"].tolist(), strict=True))
        for row, text in zip(annotations, raw, strict=True):
            with named(f"annotation {row['id']}"):
                mask = draw(read_outline(text), size, clip=self.clip)
            yield int(row["label"]), mask


def pack_coco(
    root: str | os.PathLike[str],
    split: str,
    out: str | os.PathLike[str] | RemotePath,
    *,
    annotations: str | os.PathLike[str] | None = None,
    classes: str | os.PathLike[str] | None = None,
    unlabelled: bool = True,
    clip: bool = False,
    allow: Allowances = STRICT,
    shard_size: int | None = None,
    skip_bad: bool = False,
    farm: Farm | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Index:
    """Pack the images that ROOT/annotations/instances_SPLIT.json lists, in its order, from ROOT/SPLIT.

    Classes are the categories by id with gaps closed, background first; classes: file with their names in id order
    instead. Tags are the categories of an image's annotations, crowds included. Truth is what pycocotools draws of
    annotations that are no crowds, in the file's order, later over earlier; crowds stay background, and there is no
    void (amn 5.1). Without any outline in the file there is no truth. unlabelled: keep images without annotations,
    as published. clip: cut outlines that leave their picture; else such a sample is bad.
    annotations: another annotation file. tell: hears what is left out. Raises ShardError naming what is damaged.
    """
    folder, file = _places(Path(root).absolute(), split, None if annotations is None else Path(annotations).absolute())
    given = None if classes is None else read_classes(Path(classes), accept=allow.names)
    instances = read_instances(file, given, accept=allow.names)
    outlines = _has_outlines(instances.annotations)
    reader = CocoReader(folder, instances.file, len(instances.classes), clip, outlines, allow.links)
    packed = [n for n in range(len(instances.images)) if unlabelled or len(instances.of(n))]
    _tell_left_out(folder, instances, len(instances.images) - len(packed), tell)
    sources = [_source(reader, instances.images[n], instances.of(n)) for n in packed]
    return pack(
        sources,
        path_of(out),
        classes=instances.classes,
        shard_size=shard_size,
        skip_bad=skip_bad,
        farm=farm,
        allow=allow,
        compare=False,
        source_ids=instances.source_ids,
        notes=_notes(instances, outlines),
    )


def _notes(instances: Instances, outlines: bool) -> list[str]:
    """What is taken otherwise than the file says it."""
    notes = [] if outlines else ["no truth found: no annotation has an outline"]
    if (number := instances.source_ids[0]) is not None:
        count = int((instances.annotations["label"] == 0).sum())
        notes.append(f"category {number}, named background, is background; its {count} annotations make no tags")
    return notes


def _has_outlines(annotations: np.ndarray) -> bool:
    return bool(((annotations["stop"] - annotations["start"] >= SHORTEST) & ~annotations["crowd"]).any())


def _places(root: Path, split: str, file: Path | None) -> tuple[Path, Path]:
    check_split(split, "a folder of images, such as train2014")
    folder = root / split
    file = file or root / "annotations" / f"instances_{split}.json"
    if not os.path.isdir(folder):
        raise ShardError(f"{folder}: no such folder; expected images there, and annotations in {file}")
    if not os.path.isfile(file):
        present = ", ".join(sorted(path.name for path in file.parent.glob("*.json"))[:8]) or "none"
        raise ShardError(f"{file}: no such file; found {printable(present)}")
    return folder, file


def _source(reader: CocoReader, listed: CocoImage, annotations: np.ndarray) -> PackSource:
    name = on_disk(reader.folder, listed.file_name)
    size, stamp = stamp_of([reader.folder / name])
    stamp = f"{listed.id};clip={reader.clip};{stamp};{reader.file.stamp}"
    key = key_of(PurePosixPath(listed.file_name).with_suffix("").as_posix())
    shown = f"{Path(reader.file.path).name}: image {listed.id}"
    read, file = partial(reader.read, listed, annotations), SourceFile(name, listed.id)
    return PackSource(key, listed.file_name, size, stamp, read, shown, file)


def _tags(annotations: np.ndarray, classes: int) -> np.ndarray:
    unknown = annotations[annotations["label"] == UNLISTED]
    if len(unknown):
        first = unknown[0]
        raise ShardError(
            f"annotation {first['id']} is of category {first['category']}, which is not listed under categories"
        )
    tags = np.zeros(classes - 1, np.uint8)
    labels = annotations["label"]
    tags[labels[labels > 0] - 1] = 1
    return tags


def _tell_left_out(folder: Path, instances: Instances, unlabelled: int, tell: Callable[[str], None]) -> None:
    if unlabelled:
        tell(f"{folder}: {unlabelled} images without annotations are left out")
    listed = {name.file_name for name in instances.images}
    with os.scandir(folder) as entries:
        unlisted = sum(entry.name not in listed for entry in entries if entry.is_file())
    if unlisted:
        tell(f"{folder}: {unlisted} files are not listed in {Path(instances.file.path).name} and are left out")
