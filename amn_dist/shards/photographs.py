"""Photographs of any kind to RGB, as a viewer shows them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from amn_dist.errors import ShardError, printable
from amn_dist.shards.format import BROKEN, check_size

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
"""What a folder is searched for."""


def read_photo(path: Path) -> np.ndarray:
    """A photograph as uint8[H, W, 3] RGB, as a viewer shows it: upright by EXIF, transparency over white.

    CMYK, gray, palette and 16-bit pictures are converted. Raises ShardError naming the file and the fault.
    """
    try:
        return decode_photo(path)
    except FileNotFoundError as error:
        raise ShardError(f"{path}: not there") from error
    except ShardError as error:
        raise ShardError(f"{path}: {error}") from error


def decode_photo(file: Path | BinaryIO) -> np.ndarray:
    """As read_photo; messages do not name the file."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            check_size(image.width, image.height)
            return np.array(opaque(ImageOps.exif_transpose(image)))
    except FileNotFoundError:
        raise
    except BROKEN as error:
        raise ShardError(f"not a readable photograph ({printable(error)})") from error


def as_png(content: bytes) -> bytes:
    """A photograph of any kind as an RGB PNG of the same pixels, upright."""
    stream = io.BytesIO()
    Image.fromarray(decode_photo(io.BytesIO(content))).save(stream, "PNG")
    return stream.getvalue()


def opaque(image: Image.Image) -> Image.Image:
    """A picture of any mode as RGB."""
    if image.mode.startswith(("I", "F")):
        if image.mode == "F":
            raise ShardError("has floating-point pixels; convert to 8 bits a channel")
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")
