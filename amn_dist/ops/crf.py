"""Dense CRF with Potts labels over colour and position (amn 6)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from amn_dist.errors import ConfigError
from amn_dist.ops.arrays import Array, as_array, as_floats, same_kind
from amn_dist.ops.normalise import CAFFE_MEAN

Backend = Literal["auto", "pydensecrf"]
FLOOR = 1e-5
"""Least probability that enters a unary."""


def hard_label_unary(labels: np.ndarray, count: int, certainty: float = 0.7) -> np.ndarray:
    """Unary of decided labels [H, W] in 0..count-1: -log of `certainty` for the own label, f32[count, H, W]."""
    if count == 1:
        return np.zeros((1, *labels.shape), np.float32)
    own, other = -np.log(certainty), -np.log((1 - certainty) / (count - 1))
    return np.where(np.arange(count)[:, None, None] == labels, own, other).astype(np.float32)


def dense_crf(
    image: np.ndarray | Tensor,
    unary: Array,
    *,
    gaussian: tuple[float, float] = (3, 3),
    bilateral: tuple[float, float, float] = (50, 5, 10),
    iterations: int = 10,
    backend: Backend = "auto",
) -> Array:
    """Mean-field marginals f32[L, H, W] of a fully connected CRF; ones for a single label.

    image: uint8[H, W, 3]. unary: f32[L, H, W], negative log probabilities. gaussian: (position deviation in pixels,
    weight). bilateral: (position deviation in pixels, colour deviation in 0..255, weight). auto is pydensecrf.
    """
    if backend not in ("auto", "pydensecrf"):
        raise ConfigError(f"dense_crf: found backend {backend!r}, expected auto or pydensecrf")
    pixels, energy = as_array(image), as_floats(unary)
    _check_image(pixels, energy.shape[1:])
    if len(energy) == 1:
        return same_kind(np.ones_like(energy), unary)
    return same_kind(_pydensecrf(pixels, energy, gaussian, bilateral, iterations), unary)


def deeplab_crf(
    image: np.ndarray | Tensor, probabilities: Array, *, wrap_image: bool = False, backend: Backend = "auto"
) -> Array:
    """The CRF behind DeepLab: class probabilities f32[C, H, W] of an RGB image uint8[H, W, 3] to refined ones.

    wrap_image reproduces the published input: BGR minus its mean, truncated to integers modulo 256 (amn 6, 12).
    """
    pixels = as_array(image)
    seen = _wrapped(pixels) if wrap_image else pixels[..., ::-1]
    unary = -np.log(as_floats(probabilities).clip(FLOOR, 1))
    refined = dense_crf(seen, unary, gaussian=(1, 3), bilateral=(67, 3, 4), iterations=10, backend=backend)
    return same_kind(refined, probabilities)


def _check_image(image: np.ndarray, size: tuple[int, ...]) -> None:
    if image.dtype != np.uint8 or image.shape != (*size, 3):
        found, expected = f"image {image.dtype} {image.shape}", f"uint8 {(*size, 3)}, as large as the unary"
        raise ConfigError(f"dense_crf: found {found}, expected {expected}")


def _wrapped(image: np.ndarray) -> np.ndarray:
    shifted = image[..., ::-1].astype(np.float32) - np.asarray(CAFFE_MEAN, np.float32)
    return (np.trunc(shifted).astype(np.int32) % 256).astype(np.uint8)


def _pydensecrf(
    image: np.ndarray,
    unary: np.ndarray,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> np.ndarray:
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError as error:
        raise ConfigError("dense CRF: pydensecrf is missing, expected it installed; pip install pydensecrf2") from error

    labels, height, width = unary.shape
    field = DenseCRF2D(width, height, labels)
    # The library wants contiguous memory it may write to.
    field.setUnaryEnergy(np.array(unary.reshape(labels, -1), np.float32, order="C"))
    field.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
    pixels = np.array(image, np.uint8, order="C")
    field.addPairwiseBilateral(sxy=bilateral[0], srgb=bilateral[1], rgbim=pixels, compat=bilateral[2])
    return np.array(field.inference(iterations), np.float32).reshape(unary.shape)
