"""What every decoder promises, and what they share: the look at a photo before it is decoded, and the labels."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from amn_dist.errors import ShardError, printable
from amn_dist.loaders.crops import Crop, cut_label, cut_regions
from amn_dist.ops.normalise import COLOURS
from amn_dist.records import CropRule
from amn_dist.shards.format import BROKEN, JPEG_MAGIC, PNG_MAGIC, check_size, decode_ids, sniff


@dataclass(frozen=True, slots=True)
class Encoded:
    """A training sample as it lies in its shards: photo, crop to cut from it, ids as an 8- or 16-bit PNG or None."""

    key: str
    image: bytes
    crop: Crop
    label: bytes | None = None


class CropDecoder(Protocol):
    """Cuts training crops by one rule."""

    def __call__(self, batches: Iterable[Sequence[Encoded]]) -> Generator[tuple[Tensor, Tensor | None]]:
        """For every batch, in order, images f32[B, 3, S, S] normalised and labels [B, S, S] as the rule says, or None.

        A decoder that is told so (raw) leaves the images uint8, in the order of channels that the network wants.

        No batch is larger than the first. Raises ShardError naming the key of a sample that cannot be decoded. Closing
        the iterator ends its threads.
        """
        ...


def normalisation(colour: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation f32[3] of pixels in 0..255, in the order of channels that the input has."""
    mean, deviation = COLOURS[colour]
    return mean.astype(np.float32), deviation.astype(np.float32)


def check_photo(key: str, content: bytes, size: tuple[int, int] | None = None) -> bytes:
    """Return a photo's bytes after a look at its header alone. size: expected upright (H, W).

    Raises ShardError naming the key: neither JPEG nor PNG, too large to decode, or of another size.
    """
    if not content.startswith((JPEG_MAGIC, PNG_MAGIC)):
        raise ShardError(f"{key}: the photo is {sniff(content)}; expected a JPEG or PNG; pack the set again")
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG", "PNG"]) as image:
            check_size(*image.size)
            if size is not None and sorted(image.size) != sorted(size):
                raise wrong_size(key, (image.height, image.width), size)
    except BROKEN as error:
        raise ShardError(f"{key}: the photo cannot be read ({printable(error)}); pack the set again") from error
    except ShardError as error:
        raise error if key in str(error) else ShardError(f"{key}: the photo {error}") from error
    return content


def wrong_size(key: str, found: Sequence[int], expected: Sequence[int]) -> ShardError:
    """The error of a photo whose size is not that of its report."""
    return ShardError(
        f"{key}: the photo has {found[0]}x{found[1]} pixels, its report says {expected[0]}x{expected[1]}; "
        "pack the set again"
    )


def read_label(sample: Encoded, rule: CropRule) -> np.ndarray | None:
    """Decode and cut a sample's label: uint8[S, S] classes or int32[S, S] regions. Raises ShardError naming the key."""
    if sample.label is None:
        return None
    try:
        label = decode_ids(sample.label, bits=16 if rule.label == "regions" else 8)
    except ShardError as error:
        raise ShardError(f"{sample.key}: the label {error}") from error
    if label.shape != sample.crop.size:
        found, expected = ("x".join(map(str, size)) for size in (label.shape, sample.crop.size))
        raise ShardError(f"{sample.key}: the label has {found} pixels, its photo {expected}; make the labels again")
    cut = cut_regions if rule.label == "regions" else cut_label
    return cut(label, sample.crop, rule.size)
