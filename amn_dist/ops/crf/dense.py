"""Dense CRF with Potts labels over colour and position (amn 6)."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from amn_dist.errors import ConfigError
from amn_dist.ops.arrays import Array, as_array, as_floats, same_kind
from amn_dist.ops.crf.device import mean_field_batch
from amn_dist.ops.crf.mean_field import mean_field
from amn_dist.ops.devices import has_gpu
from amn_dist.ops.normalise import CAFFE_MEAN

Backend = Literal["auto", "cpu", "gpu", "pydensecrf"]
"""cpu is ours, compiled for one core; gpu ours in torch; pydensecrf the reference; auto is gpu for CUDA tensors, else
cpu."""
FLOOR = 1e-5
"""Least probability that enters a unary."""
DEEPLAB: dict[str, Any] = {"gaussian": (1, 3), "bilateral": (67, 3, 4), "iterations": 10}
"""Kernels and iterations of the CRF behind DeepLab."""


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
    device = _device(backend, image, unary)
    if device is not None:
        tensors = _moved(image, device), _moved(unary, device)
        return _as_kind(_on_device(*tensors, gaussian, bilateral, iterations), unary)
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
    Tensors on a device are worked on there, and nothing comes to the host in between.
    """
    device = _device(backend, image, probabilities)
    if device is not None:
        refined = _deeplab_on_device(_moved(image, device), _moved(probabilities, device), wrap_image)
        return _as_kind(refined, probabilities)
    bgr = _bgr(torch.from_numpy(np.ascontiguousarray(as_array(image))), wrap_image).numpy()
    unary = -np.log(as_floats(probabilities).clip(FLOOR, 1))
    return same_kind(dense_crf(bgr, unary, **DEEPLAB, backend=backend), probabilities)


def _check(image: np.ndarray | Tensor, shape: tuple[int, ...], deviations: tuple[float, ...]) -> None:
    kind, expected = str(image.dtype).removeprefix("torch."), (*shape[-2:], 3)
    if kind != "uint8" or tuple(image.shape) != expected:
        found = f"image {kind} {tuple(image.shape)}"
        raise ConfigError(f"dense_crf: found {found}, expected uint8 {expected}, as large as the unary")
    if not all(math.isfinite(deviation) and deviation > 0 for deviation in deviations):
        raise ConfigError(f"dense_crf: found deviations {deviations}, expected positive ones")


def _device(backend: Backend, *values: np.ndarray | Tensor) -> torch.device | None:
    """The device that a backend works on; None where it is a CPU's."""
    devices = [value.device for value in values if isinstance(value, Tensor) and value.is_cuda]
    if backend not in ("auto", "gpu") or (backend == "auto" and not devices):
        return None
    if not has_gpu():
        raise ConfigError("dense_crf: found no CUDA device for backend gpu, expected one; take backend cpu")
    return devices[-1] if devices else torch.device("cuda")


def _moved(value: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """The values on a device; torch takes no array of negative strides and none that may not be written to."""
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, order="C"))
    return tensor.to(device)


def _as_kind(result: Tensor, subject: Array) -> Array:
    return result.to(subject.device) if isinstance(subject, Tensor) else result.cpu().numpy()


def _on_device(
    image: Tensor,
    unary: Tensor,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> Tensor:
    """dense_crf of tensors where they lie."""
    groups = unary.float().reshape(-1, *unary.shape[-2:])
    (marginals,) = mean_field_batch(
        [image], [groups], labels=unary.shape[-3], gaussian=gaussian, bilateral=bilateral, iterations=iterations
    )
    return marginals.reshape(unary.shape)


def _deeplab_on_device(image: Tensor, probabilities: Tensor, wrap_image: bool) -> Tensor:
    """deeplab_crf of tensors where they lie."""
    unary = -torch.log(probabilities.float().clamp(FLOOR, 1))
    _check(image, tuple(unary.shape), ())
    if len(unary) == 1:
        return torch.ones_like(unary)
    return _on_device(_bgr(image, wrap_image), unary, **DEEPLAB)


def _bgr(image: Tensor, wrap: bool) -> Tensor:
    """RGB uint8[H, W, 3] in the order of colours that the CRF behind DeepLab sees; with wrap as published."""
    bgr = image.flip(-1)
    if not wrap:
        return bgr
    shifted = torch.stack([bgr[..., c].float() - mean for c, mean in enumerate(CAFFE_MEAN)], -1)
    return shifted.trunc().int().remainder(256).to(torch.uint8)


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
