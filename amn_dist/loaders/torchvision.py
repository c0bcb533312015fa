"""Decoding with torchvision and Pillow: runs everywhere, and is what DALI is checked against."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_jpeg

from amn_dist.errors import ShardError, printable
from amn_dist.loaders.crops import Crop, cut_image
from amn_dist.loaders.decoder import Encoded, check_photo, normalisation, read_label, wrong_size
from amn_dist.loaders.prefetch import map_ahead
from amn_dist.ops.normalise import is_bgr
from amn_dist.records import CropRule
from amn_dist.shards.format import BROKEN, JPEG_MAGIC


@dataclass(frozen=True)
class TorchvisionCrops:
    """CropDecoder of `threads` threads that work `ahead` batches ahead."""

    rule: CropRule
    threads: int = 2
    ahead: int = 2
    raw: bool = False

    def __call__(self, batches: Iterable[Sequence[Encoded]]) -> Generator[tuple[Tensor, Tensor | None]]:
        work = partial(_cut, rule=self.rule, raw=self.raw)
        for cut in map_ahead(work, batches, threads=self.threads, depth=self.ahead):
            images = torch.from_numpy(np.stack([image for image, _ in cut])).permute(0, 3, 1, 2).contiguous()
            labels = [label for _, label in cut if label is not None]
            yield images, torch.from_numpy(np.stack(labels)) if labels else None


def torchvision_images(encoded: Iterable[tuple[str, bytes]], *, threads: int, ahead: int) -> Iterator[np.ndarray]:
    """Decode (key, bytes) to uint8[H, W, 3] RGB, upright, in order."""
    groups = ([sample] for sample in encoded)
    for (image,) in _decoded(groups, threads=threads, depth=ahead * threads):
        yield image


def decode_photo(key: str, content: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """One photo as uint8[H, W, 3] RGB, upright. Raises ShardError naming the key."""
    check_photo(key, content, size)
    # libpng inside torchvision ends the process on damaged files; Pillow raises.
    decode = _decode_jpeg if content.startswith(JPEG_MAGIC) else _decode_pillow
    try:
        image = decode(content)
    except (RuntimeError, *BROKEN) as error:
        raise ShardError(f"{key}: the photo is damaged ({printable(error)}); pack the set again") from error
    if size is not None and image.shape[:2] != size:
        raise wrong_size(key, image.shape, size)
    return image


def _decoded(groups: Iterable[Sequence[tuple[str, bytes]]], *, threads: int, depth: int) -> Iterator[list[np.ndarray]]:
    return map_ahead(lambda sample: decode_photo(*sample), groups, threads=threads, depth=depth)


def _decode_jpeg(content: bytes) -> np.ndarray:
    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def _decode_pillow(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            high = (np.asarray(upright) >> 8).astype(np.uint8)
            return np.repeat(high[:, :, None], 3, axis=2)
        return np.array(upright.convert("RGB"))


def _cut(sample: Encoded, rule: CropRule, *, raw: bool) -> tuple[np.ndarray, np.ndarray | None]:
    image = decode_photo(sample.key, sample.image, sample.crop.size)
    resized = _resize(image, sample.crop, rule.interpolation)
    mean, deviation = normalisation(rule.colour)
    pixels = resized[:, :, ::-1] if is_bgr(rule.colour) else resized
    values = pixels if raw else (pixels.astype(np.float32) - mean) / deviation
    return cut_image(values, sample.crop, rule.size), read_label(sample, rule)


def _resize(image: np.ndarray, crop: Crop, interpolation: str) -> np.ndarray:
    """Pillow's antialiased bicubic in uint8; or plain bilinear in float, as OpenCV does it for DeepLab (amn 5.3)."""
    height, width = crop.resized
    if interpolation == "cubic":
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    resized = functional.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()
