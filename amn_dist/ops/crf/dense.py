"""Dense CRF with Potts labels over colour and position (amn 6)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from amn_dist.errors import ConfigError
from amn_dist.ops.arrays import Array, as_array, as_floats, same_kind
from amn_dist.ops.crf.device import mean_field_batch
from amn_dist.ops.crf.mean_field import mean_field
from amn_dist.ops.normalise import CAFFE_MEAN

Backend = Literal["auto", "cpu", "gpu", "pydensecrf"]
"""cpu is ours, compiled for one core; gpu ours in torch; pydensecrf the reference; auto is gpu for CUDA tensors, else
cpu."""
FLOOR = 1e-5
"""Least probability that enters a unary."""


def hard_label_unary(labels: np.ndarray, count: int, certainty: float = 0.7) -> np.ndarray:
    """Unary of decided labels [..., H, W] in 0..count-1: -log of `certainty` for the own, f32[..., count, H, W]."""
    decided = np.arange(count)[:, None, None] == labels[..., None, :, :]
    if count == 1:
        return np.zeros(decided.shape, np.float32)
    own, other = -np.log(certainty), -np.log((1 - certainty) / (count - 1))
    return np.where(decided, np.float32(own), np.float32(other))


def dense_crf(
    image: np.ndarray | Tensor,
    unary: Array,
    *,
    gaussian: tuple[float, float] = (3, 3),
    bilateral: tuple[float, float, float] = (50, 5, 10),
    iterations: int = 10,
    backend: Backend = "auto",
) -> Array:
    """Mean-field marginals f32[..., L, H, W] of a fully connected CRF; ones for a single label.

    image: uint8[H, W, 3]. unary: f32[..., L, H, W], negative log probabilities; labellings stacked in front share the
    image and its lattices, and are filtered together. gaussian: (position deviation in pixels, weight). bilateral:
    (position deviation in pixels, colour deviation in 0..255, weight). The backends agree within 1e-4.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"dense_crf: found backend {backend!r}, expected one of {', '.join(get_args(Backend))}")
    _check(image, unary.shape, (gaussian[0], *bilateral[:2]))
    if unary.shape[-3] == 1:
        return same_kind(np.ones_like(as_floats(unary)), unary)
    on_device = any(isinstance(value, Tensor) and value.is_cuda for value in (image, unary))
    if backend == "gpu" or (backend == "auto" and on_device):
        return _on_device(image, unary, gaussian, bilateral, iterations)
    pixels, energy = as_array(image), as_floats(unary)
    groups = energy.reshape(-1, *energy.shape[-3:])
    if backend == "pydensecrf":
        marginals = np.stack([_pydensecrf(pixels, group, gaussian, bilateral, iterations) for group in groups])
    else:
        marginals = mean_field(pixels, groups, gaussian=gaussian, bilateral=bilateral, iterations=iterations)
    return same_kind(marginals.reshape(energy.shape), unary)


def deeplab_crf(
    image: np.ndarray | Tensor, probabilities: Array, *, wrap_image: bool = False, backend: Backend = "auto"
) -> Array:
    """The CRF behind DeepLab: class probabilities f32[C, H, W] of an RGB image uint8[H, W, 3] to refined ones.

    wrap_image reproduces the published input: BGR minus its mean, truncated to integers modulo 256 (amn 6).
    """
    pixels = as_array(image)
    bgr = _wrapped(pixels) if wrap_image else pixels[..., ::-1]
    unary = -np.log(as_floats(probabilities).clip(FLOOR, 1))
    refined = dense_crf(bgr, unary, gaussian=(1, 3), bilateral=(67, 3, 4), iterations=10, backend=backend)
    return same_kind(refined, probabilities)


def _check(image: np.ndarray | Tensor, shape: tuple[int, ...], deviations: tuple[float, ...]) -> None:
    kind, expected = str(image.dtype).removeprefix("torch."), (*shape[-2:], 3)
    if kind != "uint8" or tuple(image.shape) != expected:
        found = f"image {kind} {tuple(image.shape)}"
        raise ConfigError(f"dense_crf: found {found}, expected uint8 {expected}, as large as the unary")
    if not all(math.isfinite(deviation) and deviation > 0 for deviation in deviations):
        raise ConfigError(f"dense_crf: found deviations {deviations}, expected positive ones")


def _on_device(
    image: np.ndarray | Tensor,
    unary: Array,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> Array:
    if not torch.cuda.is_available():
        raise ConfigError("dense_crf: found no CUDA device for backend gpu, expected one; take backend cpu")
    device = next((value.device for value in (unary, image) if isinstance(value, Tensor) and value.is_cuda), "cuda")
    pixels, energy = (torch.as_tensor(value).to(device) for value in (image, unary))
    groups = energy.float().reshape(-1, *energy.shape[-2:])
    (marginals,) = mean_field_batch(
        [pixels],
        [groups],
        labels=energy.shape[-3],
        gaussian=gaussian,
        bilateral=bilateral,
        iterations=iterations,
    )
    marginals = marginals.reshape(energy.shape)
    return marginals.to(unary.device) if isinstance(unary, Tensor) else marginals.cpu().numpy()


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
