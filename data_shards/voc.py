"""VOC devkit layout to shards: JPEGImages, Annotations, SegmentationClass, ImageSets/Segmentation/SPLIT.txt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from amn_dist.errors import PLACE, ShardError, printable, quoted
from amn_dist.farms.farm import Farm
from amn_dist.shards.index import Index
from amn_dist.shards.names import SourceFile, holdable
from amn_dist.storage.paths import RemotePath, path_of
from data_shards.classes import VOC, multi_hot, read_classes
from data_shards.pack import pack
from data_shards.source import (
    Content,
    PackSource,
    check_split,
    key_of,
    lines_of,
    named,
    read_file,
    read_text,
    stamp_of,
)

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def pack_voc(
    root: str | os.PathLike[str],
    split: str,
    out: str | os.PathLike[str] | RemotePath,
    *,
    difficult: bool = True,
    shard_size: int | None = None,
    skip_bad: bool = False,
    farm: Farm | None = None,
) -> Index:
    """Pack the images that ROOT/ImageSets/Segmentation/SPLIT.txt lists; tags are the classes of their XML files.

    Class names come from ROOT/classes.txt (id order, background first) or are VOC's. Truth is packed when any image of
    the split has a mask; then all need one. difficult: whether objects marked so count where others are.
    Raises ShardError naming bad samples; the same call again resumes.
    """
    folder = Path(root).absolute()
    for part in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        if not os.path.isdir(folder / part):
            raise ShardError(f"{folder / part}: no such folder; expected the layout of a VOC devkit under {folder}")
    classes = read_classes(folder / "classes.txt") if (folder / "classes.txt").exists() else VOC
    ids = read_split(folder, split)
    masked = any(os.path.isfile(_mask(folder, name)) for name in ids)
    images = frozenset(os.listdir(folder / "JPEGImages"))
    sources = [_source(folder, name, images, classes, difficult=difficult, masked=masked) for name in ids]
    return pack(sources, path_of(out), classes=classes, shard_size=shard_size, skip_bad=skip_bad, farm=farm)


def read_split(root: Path, split: str) -> tuple[str, ...]:
    """The ids of a split, in the file's order; blank lines do not count. Raises ShardError naming file, line and id."""
    check_split(split, "a file in ImageSets/Segmentation, such as train")
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not os.path.isfile(path):
        present = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))) or "none"
        raise ShardError(f"{path}: no such split; found {printable(present)}")
    lines: dict[str, int] = {}
    for number, line in enumerate(lines_of(read_text(path)), 1):
        name = line.strip()
        if not name:
            continue
        if name in lines:
            raise ShardError(
                f"{path}: line {number}: id {quoted(name)} is a duplicate of line {lines[name]}; list it once"
            )
        plain = "/" not in name and "\\" not in name and not name.startswith(".") and name.isprintable()
        if len(name.split()) != 1 or not plain or not holdable(name):
            raise ShardError(f"{path}: line {number}: found {quoted(name)}, expected one id, a file name in JPEGImages")
        lines[name] = number
    if not lines:
        raise ShardError(f"{path}: lists no ids; expected one a line")
    return tuple(lines)


def read_labels(content: bytes, name: str, *, difficult: bool = True) -> tuple[str, ...]:
    """Class names of the objects in a VOC annotation; difficult=False: of difficult ones only where there are no others
    (icd 1.2). Raises ShardError naming file and line.

    Files with a document type or entities are refused before anything in them is expanded or opened.
    """
    try:
        tree = fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        raise ShardError(
            f"{printable(name, PLACE)}: declares a DTD or entities, which are refused; remove the DOCTYPE"
        ) from error
    except ParseError as error:
        fault = str(error).partition(":")[0]
        raise ShardError(
            f"{printable(name, PLACE)}: line {error.position[0]}: {printable(fault)}; expected well-formed XML"
        ) from error
    except (ValueError, LookupError) as error:
        raise ShardError(f"{printable(name, PLACE)}: cannot be read as XML ({printable(error)})") from error
    if tree.tag != "annotation":
        raise ShardError(f"{printable(name, PLACE)}: found <{printable(tree.tag)}>, expected <annotation>")
    labels = list(_labels(tree, name))
    easy = [label for label, marked in labels if not marked]
    return tuple(easy if easy and not difficult else [label for label, _ in labels])


def _labels(tree: Element, name: str) -> Iterator[tuple[str, bool]]:
    """Name of every object, and whether it is marked as difficult."""
    for number, element in enumerate(tree.findall("object"), 1):
        where = f"{name}: object {number}"
        label, marked = _only(element, "name", where), _only(element, "difficult", where) or "0"
        if not label:
            raise ShardError(f"{where} has no name")
        if marked not in ("0", "1"):
            raise ShardError(f"{where}: difficult: found '{printable(marked, 80)}', expected 0 or 1")
        yield label, marked == "1"


def _only(parent: Element, tag: str, where: str) -> str:
    """The text of an element that there is once at most."""
    elements = parent.findall(tag)
    if len(elements) > 1:
        raise ShardError(f"{where} has {len(elements)} elements <{tag}>, expected one")
    return (elements[0].text or "").strip() if elements else ""


def _source(
    root: Path, name: str, images: frozenset[str], classes: tuple[str, ...], *, difficult: bool, masked: bool
) -> PackSource:
    """images: names of the files there are."""
    files = [f"{name}{suffix}" for suffix in SUFFIXES if f"{name}{suffix}" in images]
    if len(files) > 1:
        raise ShardError(f"{root / 'JPEGImages'}: {files[0]} and {files[1]} are both image {name}; remove one of them")
    image = root / "JPEGImages" / (files[0] if files else f"{name}{SUFFIXES[0]}")
    annotation = root / "Annotations" / f"{name}.xml"
    mask = _mask(root, name) if masked else None
    size, stamp = stamp_of([image, *([mask] if mask is not None else []), annotation])
    read = partial(_read, root, image, annotation, mask, classes, difficult)
    shown = _mask(root, name).relative_to(root).as_posix()
    stamp = f"difficult={difficult};{stamp}"
    shown_image = image.relative_to(root).as_posix()
    return PackSource(key_of(name), shown_image, size, stamp, read, shown, SourceFile(image.name))


def _read(
    root: Path, image: Path, annotation: Path, mask: Path | None, classes: tuple[str, ...], difficult: bool
) -> Content:
    def content(path: Path) -> bytes:
        return read_file(path, path.relative_to(root).as_posix())

    photo, shown = content(image), annotation.relative_to(root).as_posix()
    labels = read_labels(content(annotation), shown, difficult=difficult)
    with named(shown):
        tags = multi_hot(labels, classes)
    return Content(photo, tags, None if mask is None else content(mask))


def _mask(root: Path, name: str) -> Path:
    return root / "SegmentationClass" / f"{name}.png"
