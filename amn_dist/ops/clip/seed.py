"""Maps of CLIP to labels: one CRF, and nothing said where it is not sure (clip 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from amn_dist.ops.crf.batch import batched_crf
from amn_dist.ops.crf.dense import DEEPLAB, FLOOR, Backend, _bgr, dense_crf
from amn_dist.records import IGNORE


def scores_of(maps: Tensor, *, half: bool) -> Tensor:
    """Scores [1 + K, H, W] of background, one minus the largest map, and of maps f32[K, H, W]. half: as float16."""
    maps = maps.half() if half else maps.float()
    most = maps.amax(0, keepdim=True) if len(maps) else torch.zeros_like(maps.sum(0, keepdim=True))
    return torch.cat([1 - most, maps])


def energies_of(scores: Tensor) -> Tensor:
    """-log of scores as they are, which do not sum to one: f32[1 + K, H, W], with the rounding of their type."""
    return -scores.clamp(FLOOR, 1).log().float()


def largest_labels(maps: Tensor, classes: Tensor, *, half: bool) -> Tensor:
    """Labels uint8[H, W] of the largest score; ties go to background, then to the first class."""
    return classes[scores_of(maps, half=half).argmax(0)]


def confident_labels(
    image: np.ndarray,
    maps: np.ndarray,
    classes: np.ndarray,
    *,
    confidence: float = 0.95,
    half: bool = True,
    wrap_image: bool = True,
    backend: Backend | None = "auto",
) -> np.ndarray:
    """Labels uint8[H, W] of an image uint8[H, W, 3]; 255 where their marginal lies below the confidence.

    maps: f32[K, H, W]. classes: uint8[K], 1-based. backend: of the CRF; without one the largest score decides.
    """
    names, fine = with_background(classes), torch.from_numpy(maps)
    if backend is None:
        return largest_labels(fine, torch.from_numpy(names), half=half).numpy()
    pixels = _bgr(torch.from_numpy(np.ascontiguousarray(image)), wrap_image).numpy()
    marginals = dense_crf(pixels, energies_of(scores_of(fine, half=half)).numpy(), **DEEPLAB, backend=backend)
    return _decided(torch.as_tensor(marginals), torch.from_numpy(names), confidence).numpy()


def confident_labels_on_device(
    images: Sequence[Tensor],
    maps: Sequence[Tensor],
    classes: Sequence[Tensor],
    *,
    confidence: float = 0.95,
    half: bool = True,
    wrap_image: bool = True,
) -> list[Tensor]:
    """confident_labels of several images where they lie. classes: uint8[1 + K], background first."""
    unaries = [energies_of(scores_of(one, half=half))[None] for one in maps]
    refined = batched_crf([_bgr(image, wrap_image) for image in images], unaries, **DEEPLAB)
    labels = {place: _decided(marginals[0], classes[place], confidence) for place, marginals in refined}
    return [labels[place] for place in range(len(images))]


def with_background(classes: np.ndarray) -> np.ndarray:
    """uint8[1 + K], 0 first."""
    return np.concatenate([np.zeros(1, np.uint8), classes.astype(np.uint8)])


def _decided(marginals: Tensor, classes: Tensor, confidence: float) -> Tensor:
    most, place = marginals.max(0)
    # Published marginals are compared in float32, which 0.95 is not.
    return torch.where(most < float(np.float32(confidence)), IGNORE, classes[place])
