"""Which pictures and truth masks may enter a shard set."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from amn_dist.errors import ShardError, printable
from amn_dist.records import IGNORE
from amn_dist.shards.format import (
    BROKEN,
    JPEG_MAGIC,
    PNG_MAGIC,
    check_size,
    decode_ids,
    png_mode,
    sniff,
)
from amn_dist.shards.photographs import as_png

MIN_SIDE = 16
"""Pixels; below it no network has a cell to say something about."""
CONVERT = ", or pack with --convert"
"""End of a message about a picture of another kind."""
ORIENTATION = 0x0112
"""EXIF tag; 5 to 8 swap height and width."""

# Pillow says so of a photograph without its name; damaged EXIF turns none.
warnings.filterwarnings("ignore", "(?i)(corrupt|truncated).*(exif|data|file)", module=r"PIL\b")


@dataclass(frozen=True, slots=True)
class Photo:
    """What a full decode found. field: jpg or png, by content. height, width: upright, pixels."""

    field: str
    height: int
    width: int


def check_photo(content: bytes) -> Photo:
    """Decode an image file in full. Raises ShardError saying what is wrong with it.

    RGB and gray JPEG and 8-bit PNG pass; the file's name does not matter. EXIF orientation is honoured.
    """
    field, kind = _kind(content)
    try:
        with Image.open(io.BytesIO(content), formats=[kind]) as image:
            _check_mode(image.mode)
            _check_sides(image.width, image.height)
            image.load()
            swapped = _orientation(image.info.get("exif")) >= 5
            width, height = (image.height, image.width) if swapped else (image.width, image.height)
    except BROKEN as error:
        raise ShardError(f"cannot be decoded ({printable(error)}); replace the file") from error
    return Photo(field, height, width)


def take_photo(content: bytes, *, convert: bool) -> tuple[bytes, Photo]:
    """An image file that may enter a set, and what it is: the file itself; with convert, of a picture of another kind
    the same pixels as an RGB PNG, as predict sees them. Raises ShardError saying what is wrong with it."""
    try:
        return content, check_photo(content)
    except ShardError as fault:
        if not convert or not str(fault).endswith(CONVERT):
            raise
    picture = as_png(content)
    return picture, check_photo(picture)


def check_truth(content: bytes | np.ndarray, photo: Photo, classes: int) -> np.ndarray:
    """Ids uint8[H, W] of a truth mask, from a PNG or as they are. classes: C with background; ids are below it or 255.

    Raises ShardError naming the mode, both sizes, or the unknown ids.
    """
    ids = decode_ids(content) if isinstance(content, bytes) else content
    if ids.shape != (photo.height, photo.width):
        raise ShardError(
            f"is {ids.shape[1]}x{ids.shape[0]}, its image {photo.width}x{photo.height} (upright, width x height); "
            "they must fit"
        )
    if ids.max() < classes:  # most masks, without sorting their pixels
        return ids
    present = np.unique(ids)
    unknown = present[(present >= classes) & (present != IGNORE)]
    if unknown.size:
        shown = ", ".join(str(number) for number in unknown[:8])
        raise ShardError(f"holds id {shown}; expected 0 to {classes - 1}, or {IGNORE} for void")
    return ids


def _kind(content: bytes) -> tuple[str, str]:
    if content.startswith(JPEG_MAGIC):
        return "jpg", "JPEG"
    if not content.startswith(PNG_MAGIC):
        raise ShardError(f"is {sniff(content)}; expected a JPEG or PNG{CONVERT}")
    mode, bits = png_mode(content)
    if bits != 8:
        raise ShardError(f"is a {mode} PNG; convert to RGB with 8 bits a channel{CONVERT}")
    return "png", "PNG"


def _check_mode(mode: str) -> None:
    if mode not in ("RGB", "L"):
        name = {"P": "palette (P)", "LA": "gray with alpha (LA)"}.get(mode, mode)
        raise ShardError(f"is {name}; convert to RGB{CONVERT}")


def _check_sides(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise ShardError(f"is {width}x{height}; expected at least {MIN_SIDE} pixels a side")
    check_size(width, height)


def _orientation(exif: bytes | None) -> int:
    # Pillow's getexif() also looks into XMP, which other decoders do not: only EXIF counts.
    if not exif:
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        orientation = tags.get(ORIENTATION, 1)
    except (SyntaxError, ValueError, KeyError, struct.error):
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
