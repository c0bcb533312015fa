"""Values that travel between the rooms of the package.

Shape legend, used everywhere: B batch, C classes with background, K classes present in an image,
H W pixels, h w stride-4 grid with h = (H - 1) // 4 + 1, S scales.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

IGNORE = 255
"""Label of a pixel without a decision; never counted in a loss or a score."""

ACTIVATION = "activation.f16"
"""The field of stride-4 maps of an image's classes, f16[K, h, w] in [0, 1]."""

PROPOSALS = "proposals.rle"
"""The field of masks that belong to no class: int32[2 + M], H and W, then run lengths (shards/run_lengths.py)."""


def grid_size(height: int, width: int, stride: int = 4) -> tuple[int, int]:
    """Size of the stride-4 grid over an image: (H - 1) // 4 + 1 and the same for W (amn 1.2)."""
    return (height - 1) // stride + 1, (width - 1) // stride + 1


@dataclass(frozen=True, slots=True)
class CoarseMaps:
    """Maps that are bilinear between few values, and are stored as these: f16[K, h', w'], and (h, w) when read."""

    values: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a network believes about the classes an image is tagged with.

    classes: uint8[K], 1-based ids in ascending order. coarse: f32[K, h, w]. fine: f32[K, H, W], on the device of the
    network as long as the sample has not left its worker. decided: uint8[H, W] labels of a network that decides
    without a threshold, 255 where it does not; None from any other.
    """

    classes: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray | Tensor
    decided: np.ndarray | None = None


@dataclass(slots=True)
class Sample:
    """One image on its way through a Map.

    image: uint8[H, W, 3] RGB, upright. tags: uint8[C-1] multi-hot. joined: fields of earlier stages by stage name.
    evidence: full-resolution maps of the stage before in the same stream. logits: f32[h, w, C] of a segmentation
    network, classes innermost, from one part of its Map to the next. made: what each stage of the stream yields, by
    stage name and field: arrays, or CoarseMaps.
    """

    key: str
    ordinal: int
    image: np.ndarray
    tags: np.ndarray
    joined: dict[str, np.ndarray] = field(default_factory=dict)
    evidence: Evidence | None = None
    logits: np.ndarray | None = None
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    """(H, W) of the photograph where the image is a smaller copy of it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of a training batch.

    image: f32[B, 3, H, W] normalised; or uint8, on its way to a device that normalises it, with boxes int64[B, 4]: top,
    left, height, width of the photo in each crop, beyond which the normalised image is 0. tags: f32[B, C-1]. label:
    uint8[B, H, W] with 255 = ignore; or int32[B, H, W] regions, negative outside the photo; or None. draws: a number
    for every sample that its dropout is drawn from, by the step, the same in whatever process it lies; the loop sets
    them.
    """

    keys: tuple[str, ...]
    ordinals: tuple[int, ...]
    image: Tensor
    tags: Tensor
    label: Tensor | None = None
    draws: tuple[int, ...] = ()
    boxes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device, image in channels_last."""
        return replace(
            self,
            image=self.image.to(device, non_blocking=True, memory_format=torch.channels_last),
            tags=self.tags.to(device, non_blocking=True),
            label=None if self.label is None else self.label.to(device, non_blocking=True),
            boxes=None if self.boxes is None else self.boxes.to(device, non_blocking=True),
        )

    def split(self, size: int) -> Iterator[Batch]:
        """Micro-batches of at most `size` samples, in order."""
        for start in range(0, len(self), size):
            cut = slice(start, start + size)
            yield Batch(
                keys=self.keys[cut],
                ordinals=self.ordinals[cut],
                image=self.image[cut],
                tags=self.tags[cut],
                label=None if self.label is None else self.label[cut],
                draws=self.draws[cut],
                boxes=None if self.boxes is None else self.boxes[cut],
            )


@dataclass(frozen=True, slots=True)
class CropRule:
    """How a training crop is cut from an image (amn 5.3).

    Exactly one of long_side (uniform int, long side in pixels), rescale (uniform float factor) and scales (one of
    these factors, sizes truncated, or with rounding="half_up" rounded) is set. Sizes of long_side and rescale round
    half to even. After resizing the image is normalised, flipped with probability 1/2 and cut to size x size; a side
    smaller than the crop lies at a random offset inside it (place="random") or at the top left (place="corner"); the
    fill is 0 after normalisation. interpolation is Pillow's bicubic with antialias, or bilinear; labels are nearest.
    label: `classes`, 8-bit ids taken at cell centres, 255 outside the photo; or `regions`, 16-bit ids taken at the
    cells' first corners (as OpenCV does), -1 outside.
    """

    size: int
    long_side: tuple[int, int] | None = None
    rescale: tuple[float, float] | None = None
    scales: tuple[float, ...] | None = None
    rounding: Literal["down", "half_up"] = "down"
    label: Literal["classes", "regions"] = "classes"
    place: str = "random"
    interpolation: str = "cubic"
    colour: str = "imagenet"
