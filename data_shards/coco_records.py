"""The records of COCO's instances_SPLIT.json, as the format has them and as programs write them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Side = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
LooseId = Id | Annotated[float, msgspec.Meta(ge=0, le=2**53, multiple_of=1)]
"""A whole number that a program has written with a point, such as 48.0."""
LooseSide = Side | Annotated[float, msgspec.Meta(ge=1, le=2**31 - 1, multiple_of=1)]
LooseMark = bool | Annotated[int, msgspec.Meta(ge=0, le=1)] | Annotated[float, msgspec.Meta(ge=0, le=1, multiple_of=1)]


class CocoImage(msgspec.Struct, frozen=True, gc=False):
    """An image as the file lists it. height, width: pixels."""

    id: Id
    file_name: str
    height: Side
    width: Side


class CocoAnnotation(msgspec.Struct, frozen=True, gc=False):
    """An annotation. segmentation: its outline, unread."""

    id: Id
    image_id: Id
    category_id: Id
    segmentation: msgspec.Raw = msgspec.Raw(b"")
    iscrowd: Literal[0, 1] = 0


class CocoCategory(msgspec.Struct, frozen=True, gc=False):
    """A category."""

    id: Id
    name: str


class CocoFile(msgspec.Struct, frozen=True):
    """What is read of the file."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


class _LooseImage(msgspec.Struct, frozen=True, gc=False):
    id: LooseId
    file_name: str
    height: LooseSide
    width: LooseSide


class _LooseAnnotation(msgspec.Struct, frozen=True, gc=False):
    id: LooseId
    image_id: LooseId
    category_id: LooseId
    segmentation: msgspec.Raw = msgspec.Raw(b"")
    iscrowd: LooseMark = 0


class _LooseCategory(msgspec.Struct, frozen=True, gc=False):
    id: LooseId
    name: str


class _LooseFile(msgspec.Struct, frozen=True):
    images: list[_LooseImage]
    annotations: list[_LooseAnnotation]
    categories: list[_LooseCategory]


def parse_instances(content: Any) -> CocoFile:
    """The records in a buffer of JSON. Whole numbers may have a point and iscrowd may be true or false.

    Raises msgspec.DecodeError of what fits neither, ValidationError with the first place that is not as COCO has it.
    """
    try:
        return msgspec.json.decode(content, type=CocoFile)
    except msgspec.ValidationError as fault:
        try:
            return _strict(msgspec.json.decode(content, type=_LooseFile))
        except msgspec.ValidationError:
            raise fault from None


def _strict(file: _LooseFile) -> CocoFile:
    return CocoFile(
        [CocoImage(int(row.id), row.file_name, int(row.height), int(row.width)) for row in file.images],
        [
            CocoAnnotation(
                int(row.id), int(row.image_id), int(row.category_id), row.segmentation, 1 if row.iscrowd else 0
            )
            for row in file.annotations
        ],
        [CocoCategory(int(row.id), row.name) for row in file.categories],
    )
