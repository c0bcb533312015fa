"""Bytes of a field to an array and back; which keys and fields are legal."""

from __future__ import annotations

import io
import re
import struct
import threading
import zlib
from math import prod
from tokenize import TokenError
from typing import Literal

import numpy as np
from PIL import Image

from amn_dist.errors import ShardError, printable, quoted
from amn_dist.records import CoarseMaps
from amn_dist.shards.float16 import decode_float16, encode_float16
from amn_dist.shards.label_runs import encode_runs
from amn_dist.shards.run_lengths import decode_lengths, encode_lengths

MAX_SIDE = 16384
"""Pixels on the longer side of any picture we decode; above it a file is taken for a bomb."""
MAX_PIXELS = 64 * 2**20
"""Pixels of any picture we decode."""
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises on damaged files."""
NOT_NPY = (
    *(ValueError, TypeError, LookupError, EOFError, SyntaxError, TokenError),
    *(RecursionError, MemoryError, OverflowError),
)
"""What NumPy raises on the headers of other files."""
MAX_AXES = 8
"""Of an array."""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
OTHER_PICTURES = {b"BM": "a BMP", b"GIF8": "a GIF", b"II*\0": "a TIFF", b"MM\0*": "a TIFF"}
PHOTOS = ("jpg", "png")
"""Fields that hold an image as it was found; a sample has exactly one of them or none."""
FieldKind = Literal["tags", "labels", "regions", "maps", "masks", "array"]
"""What a field is as an array: tags; ids of 8 and of 16 bits; float16 maps; masks' run lengths; any other numbers."""
ENDINGS: dict[str, FieldKind] = {
    ".u16.png": "regions",
    ".png": "labels",
    ".f16": "maps",
    ".rle": "masks",
    ".npy": "array",
}
"""Kind of a field by the end of its name; the first that fits."""

_PARSING = threading.Lock()
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,199}")
_FIELD = re.compile(r"[a-z0-9][a-z0-9_]*(\.[a-z0-9_]+)*")


def check_key(key: str) -> str:
    """Return the key. Raises ShardError unless it has 1 to 200 of A-Z a-z 0-9 _ - and no leading dash."""
    if not _KEY.fullmatch(key):
        raise ShardError(f"key {quoted(key, 220)}: expected 1 to 200 of A-Z a-z 0-9 _ - without a leading dash")
    return key


def check_field(field: str) -> str:
    """Return the field's name. Raises ShardError unless it is lower case words joined by dots."""
    if not _FIELD.fullmatch(field):
        raise ShardError(f"field {quoted(field, 220)}: expected lower case words joined by dots, such as seed.png")
    return field


def kind_of(field: str) -> FieldKind | None:
    """What decode makes of a field; None when it is kept as bytes alone. The only place that knows."""
    if field == "tags":
        return "tags"
    return next((kind for ending, kind in ENDINGS.items() if field.endswith(ending)), None)


def encode(field: str, array: np.ndarray | CoarseMaps, *, quick: bool = False) -> bytes:
    """Bytes of an array under this field; the same array gives the same bytes. quick: labels in a fifth of the time, as
    other bytes of the same format.

    *.npy: any numeric or boolean array. *.f16: float16[K, h, w], deflated, or CoarseMaps, which are read as such. tags:
    uint8[C-1] of 0 and 1. *.png: uint8[H, W], stored as 8-bit gray; *.u16.png: uint16[H, W], stored as 16-bit gray.
    *.rle: int32[2 + M], run lengths of masks (shards/run_lengths.py), deflated.
    """
    if isinstance(array, CoarseMaps):
        return _encode_maps(field, array)
    array = np.asarray(array)
    match kind_of(field):
        case "tags":
            return _checked_tags(array).tobytes()
        case "labels" | "regions":
            return _encode_png(field, array, quick=quick)
        case "array":
            return _encode_npy(field, array)
        case "maps":
            return _encode_maps(field, array)
        case "masks":
            return _encode_masks(field, array)
    raise ShardError(f"field {printable(field)}: arrays are stored as tags or as {_endings()}")


def decode(field: str, data: bytes) -> np.ndarray:
    """Array of a field's bytes, writable.

    tags: uint8[C-1]; *.png: uint8[H, W] ids, *.u16.png uint16; *.f16, *.rle and *.npy: as stored.

    Raises ShardError when the bytes are not what the field's name promises. Nothing is unpickled.
    """
    match kind := kind_of(field):
        case "tags":
            return _checked_tags(np.frombuffer(data, np.uint8).copy())
        case "labels" | "regions":
            return decode_ids(data, bits=16 if kind == "regions" else 8)
        case "array":
            return _decode_npy(data)
        case "maps":
            return decode_float16(data)
        case "masks":
            return decode_lengths(data)
    raise ShardError(
        f"field {printable(field)}: only tags and {_endings()} are arrays; its bytes can be read as they are"
    )


def decode_ids(data: bytes, *, bits: int = 8) -> np.ndarray:
    """Ids uint8[H, W] of an 8-bit gray or palette PNG, whatever its colours; uint16 of 16-bit gray."""
    mode, depth = png_mode(data)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            check_size(image.width, image.height)
            if bits == 16 and not (image.mode.startswith("I") and depth == 16):
                raise ShardError(f"is a {mode} PNG; expected ids in a 16-bit gray PNG")
            if bits == 8 and (image.mode not in ("L", "P") or (image.mode == "L" and depth != 8)):
                raise ShardError(f"is a {mode} PNG; expected ids in an 8-bit gray or palette PNG")
            return np.array(image, dtype=np.uint16 if bits == 16 else np.uint8)
    except BROKEN as error:
        raise ShardError(f"is a damaged PNG ({printable(error)})") from error


def png_mode(data: bytes) -> tuple[str, int]:
    """Name of a PNG's pixel format, such as `16-bit gray`, and its bits a channel, from its header."""
    if len(data) < 33 or data[:8] != PNG_MAGIC or data[12:16] != b"IHDR":
        raise ShardError(f"is {sniff(data)}; expected a PNG")
    bits, colour = data[24], data[25]
    names = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGBA"}
    return f"{bits}-bit {names.get(colour, f'type {colour}')}", bits


def check_size(width: int, height: int) -> None:
    """Raise ShardError for pictures so large that decoding them is a risk."""
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ShardError(
            f"has {width}x{height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS >> 20} Mpx are decoded"
        )


def sniff(data: bytes) -> str:
    """What bytes look like, in words for a message."""
    if not data:
        return "empty"
    if data.startswith(JPEG_MAGIC):
        return "a JPEG"
    if data.startswith(PNG_MAGIC):
        return "a PNG cut inside its header" if len(data) < 33 else "a PNG"
    for magic, name in OTHER_PICTURES.items():
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP"
    head = data[:64]
    kind = "text" if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head) else "of an unknown format"
    return f"{kind} (starts with {head[:12]!r})"


def _endings() -> str:
    return ", ".join(f"*{ending}" for ending in ENDINGS)


def _checked_tags(tags: np.ndarray) -> np.ndarray:
    if tags.dtype != np.uint8 or tags.ndim != 1:
        raise ShardError(f"tags: found {tags.dtype}{list(tags.shape)}, expected uint8[C-1]")
    if tags.size and tags.max() > 1:
        raise ShardError(f"tags: found the value {tags.max()}, expected 0 and 1")
    return tags


def _encode_png(field: str, array: np.ndarray, *, quick: bool) -> bytes:
    expected = np.uint16 if kind_of(field) == "regions" else np.uint8
    if array.dtype != expected or array.ndim != 2 or not array.size:
        raise ShardError(f"field {field}: found {array.dtype}{list(array.shape)}, expected {expected.__name__}[H, W]")
    if quick and expected is np.uint8:
        return encode_runs(array)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def _encode_maps(field: str, array: np.ndarray | CoarseMaps) -> bytes:
    try:
        return encode_float16(array)
    except ShardError as error:
        raise ShardError(f"field {field}: {error}") from error


def _encode_masks(field: str, array: np.ndarray) -> bytes:
    try:
        return encode_lengths(array)
    except ShardError as error:
        raise ShardError(f"field {field}: {error}") from error


def _encode_npy(field: str, array: np.ndarray) -> bytes:
    if array.dtype.kind not in "biuf":
        raise ShardError(f"field {field}: found dtype {array.dtype}, expected numbers")
    stream = io.BytesIO()
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    np.lib.format.write_array(stream, np.asarray(little, order="C"), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def npy_header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype that an .npy declares; nothing is compared with what it holds.

    Raises what NumPy raises: ValueError, KeyError (of the version), EOFError, SyntaxError, RecursionError, TokenError.
    """
    # Python 3.11 loses count of its parser's depth when a garbage collection hands over to a thread that parses too.
    with _PARSING:
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read[np.lib.format.read_magic(stream)](stream)
        return shape, fortran, dtype


def _decode_npy(data: bytes) -> np.ndarray:
    stream = io.BytesIO(data)
    try:
        shape, fortran, dtype = npy_header(stream)
    except NOT_NPY as error:
        raise ShardError(f"is not an .npy file ({printable(error)})") from error
    if dtype.hasobject or dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ShardError(
            f"is an .npy of dtype {printable(dtype)}; expected numbers, since objects would have to be unpickled"
        )
    head, rest = data[: stream.tell()], len(data) - stream.tell()
    if any(head.count(name) != 1 for name in (b"descr", b"fortran_order", b"shape")):
        raise ShardError("is an .npy whose header says something twice; expected descr, fortran_order, shape once each")
    # Compared before anything is allocated: the shape is whatever the file claims.
    sides = len(shape) <= MAX_AXES and all(type(side) is int and side >= 0 for side in shape)
    if not sides or prod(max(side, 1) for side in shape) >= 2**48 or prod(shape) * dtype.itemsize != rest:
        raise ShardError(f"is an .npy that declares {printable(dtype)}{printable(list(shape))} but holds {rest} bytes")
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C").copy()
