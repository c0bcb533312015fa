"""VOC devkit layout to shards: JPEGImages, Annotations, SegmentationClass, ImageSets/Segmentation/SPLIT.txt."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from amn_dist.errors import PLACE, ConfigError, ShardError, printable
from amn_dist.farms.farm import Farm
from amn_dist.shards.index import Index
from amn_dist.shards.names import SourceFile
from amn_dist.storage.paths import RemotePath, is_file, path_of
from data_shards.allowances import STRICT, Allowances
from data_shards.classes import VOC, multi_hot, read_classes
from data_shards.pack import pack
from data_shards.source import Content, PackSource, inside, key_of, on_disk, read_file, stamp_of
from data_shards.tag_files import read_tags
from data_shards.voc_list import IMAGES, Listed, read_split
from data_shards.voc_masks import MaskFolder, find_masks
from data_shards.voc_xml import read_labels

XML = "Annotations"
SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
CONVERTED = tuple(form(ending) for ending in (".bmp", ".webp", ".tif", ".tiff", ".gif") for form in (str, str.upper))
"""Endings of photographs that --convert takes, where there is none of SUFFIXES."""


@dataclass(frozen=True, slots=True)
class VocReader:
    """What the samples of a set have in common. tagged: tags by name, in the place of XML files.

    difficult: whether objects marked so count where others are. unlabelled: an image without an XML file has no tags.
    """

    root: Path
    classes: tuple[str, ...]
    difficult: bool
    unlabelled: bool
    allow: Allowances

    def read(self, image: str, mask: Path | None, tags: np.ndarray | str | None) -> Content:
        """A sample. image: name of its file. tags: multi-hot; or why there are none; None: those of its XML file."""
        photo = self._content(self.root / IMAGES / image)
        if isinstance(tags, str):
            raise ShardError(tags)
        tags = self._tags(Path(image).stem) if tags is None else tags
        return Content(photo, tags, None if mask is None else self._content(mask))

    def shown(self, path: Path) -> str:
        """What messages call a file."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _tags(self, name: str) -> np.ndarray:
        path = self.root / XML / f"{name}.xml"
        there = os.path.lexists(path)
        if self.allow.trust == "masks" or (self.unlabelled and not there):
            return np.zeros(len(self.classes) - 1, np.uint8)
        if not there:
            raise ShardError(f"{self.shown(path)}: not there; --unlabelled takes such images as images without tags")
        labels = read_labels(self._content(path), self.shown(path), difficult=self.difficult)
        try:
            return multi_hot(labels, self.classes)
        except ShardError as error:
            hint = (
                "; names other than VOC's stand in ROOT/classes.txt, or --classes FILE" if self.classes == VOC else ""
            )
            raise ShardError(f"{self.shown(path)}: {error}{hint}") from error

    def _content(self, path: Path) -> bytes:
        inside(path.parent, path.name, links=self.allow.links, root=self.root)
        return read_file(path, self.shown(path))


def pack_voc(
    root: str | os.PathLike[str],
    split: str,
    out: str | os.PathLike[str] | RemotePath,
    *,
    tags: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    truth: bool = True,
    classes: str | os.PathLike[str] | None = None,
    difficult: bool = True,
    unlabelled: bool = False,
    allow: Allowances = STRICT,
    shard_size: int | None = None,
    skip_bad: bool = False,
    farm: Farm | None = None,
) -> Index:
    """Pack the images that ROOT/ImageSets/Segmentation/SPLIT.txt lists; tags are the classes of their XML files.

    tags: a file of them instead, cls_labels.npy or a table; masks: folder of truth; both in ROOT or anywhere. Without
    masks the list says them, or they are looked for in SegmentationClass and its neighbours. Truth is packed when any
    image of the split has a mask; then all need one. truth: whether it is wanted. classes: file of names in id order,
    background first; without it ROOT/classes.txt, or VOC's names. difficult: whether objects marked so count where
    others are. unlabelled: images without an XML file have no tags.
    Raises ShardError naming bad samples; the same call again resumes.
    """
    folder = Path(root).absolute()
    _check_layout(folder, xml=tags is None and allow.trust != "masks")
    table = folder / "classes.txt" if classes is None else Path(classes)
    names = read_classes(table, accept=allow.names) if classes is not None or table.exists() else VOC
    listed = read_split(folder, split)
    images = _images(folder, listed)
    mask_folder = find_masks(
        folder, [(Path(file).stem, row.mask) for row, file in images.items()], masks, truth, skip_bad
    )
    if allow.trust == "masks" and mask_folder.folder is None:
        raise ConfigError(f"--trust-masks: found no masks under {folder}, expected truth to make tags of")
    tagged = None
    if tags is not None:
        tags = folder / tags if is_file(folder / tags) else Path(tags)
        tagged = read_tags(tags, [Path(file).stem for file in images.values()], names)
    reader = VocReader(folder, names, difficult, unlabelled, allow)
    sources = [_source(reader, row, file, mask_folder, tagged, tags) for row, file in images.items()]
    return pack(
        sources,
        path_of(out),
        classes=names,
        shard_size=shard_size,
        skip_bad=skip_bad,
        farm=farm,
        allow=allow,
        notes=[*mask_folder.notes, *([f"{split}.txt: the numbers behind ids are not read"] if listed[0].mark else [])],
    )


def _check_layout(folder: Path, *, xml: bool) -> None:
    for part in (IMAGES, "ImageSets", *([XML] if xml else [])):
        if os.path.isdir(folder / part):
            continue
        expected = f"expected the layout of a VOC devkit under {folder}"
        if part == XML:
            expected = "expected an XML file of every image there, or tags by --tags cls_labels.npy or --trust-masks"
        raise ShardError(f"{folder / part}: no such folder; {expected}")


def _images(folder: Path, listed: Sequence[Listed]) -> dict[Listed, str]:
    """The file of every listed image; what its name would be where there is none."""
    present = frozenset(os.listdir(folder / IMAGES))
    files: dict[Listed, str] = {}
    for row in listed:
        file, whole = _file(folder / IMAGES, row.name, present), on_disk(folder / IMAGES, row.name)
        files[row] = whole if file not in present and whole in present else file
    stems: dict[str, str] = {}
    for file in files.values():
        if stems.setdefault(Path(file).stem, file) != file:
            raise ShardError(
                f"{folder / IMAGES}: {stems[Path(file).stem]} and {file} are both listed; list one of them"
            )
    return files


def _file(folder: Path, name: str, present: frozenset[str]) -> str:
    spelt = [f"{name}{suffix}" for suffix in SUFFIXES]
    files = [file for file in spelt if file in present]
    if not files and not name.isascii():
        files = [file for file in (on_disk(folder, file) for file in spelt) if file in present]
    files = files or [f"{name}{suffix}" for suffix in CONVERTED if f"{name}{suffix}" in present]
    if len(files) > 1:
        raise ShardError(f"{folder}: {files[0]} and {files[1]} are both image {name}; remove one of them")
    return files[0] if files else f"{name}{SUFFIXES[0]}"


def _source(
    reader: VocReader,
    row: Listed,
    file: str,
    masks: MaskFolder,
    tagged: Mapping[str, np.ndarray] | None,
    tag_file: str | os.PathLike[str] | None,
) -> PackSource:
    image, stem = reader.root / IMAGES / file, Path(file).stem
    mask = masks.path(stem)
    paths = [image, *([mask] if mask is not None else [])]
    tags: np.ndarray | str | None = None
    if tagged is not None:
        tags = tagged.get(stem, f"{printable(tag_file, PLACE)}: has no tags of {stem}")
        marks = tags if isinstance(tags, str) else tags.tobytes().hex()
        size, stamp = stamp_of(paths)
        stamp = f"tags={marks};{stamp}"
    else:
        size, stamp = stamp_of([*paths, reader.root / XML / f"{stem}.xml"])
        stamp = f"difficult={reader.difficult};{'unlabelled;' if reader.unlabelled else ''}{stamp}"
    read = partial(reader.read, file, mask, tags)
    shown = reader.shown(mask) if mask is not None else ""
    return PackSource(key_of(stem), f"{IMAGES}/{file}", size, stamp, read, shown, SourceFile(file))
