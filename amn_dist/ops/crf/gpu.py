"""Mean field of a dense CRF on a CUDA device, several images at once (amn 6); the twin of device.py in kernels.

The last label of every labelling is not filtered: marginals sum to one. Where a single labelling has many labels, those
that cannot matter (label_bounds) are pooled, image by image; the device is asked which, once a batch, and others in the
batch then move an image by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from amn_dist.ops.crf.kernel_lattice import (
    TILE,
    KernelLattice,
    bilateral_lattices,
    first_pixels,
    gaussian_lattices,
    padded_width,
    row_width,
)
from amn_dist.ops.crf.label_bounds import weak_labels
from amn_dist.ops.kernels.lattice_filter import update_kernel
from amn_dist.ops.kernels.launching import blocks, launch
from amn_dist.ops.transfer import to_device

DROP_FROM = 9
"""Labels of a single labelling from which on it pays to ask which of them matter."""
Weighted = Sequence[tuple[KernelLattice, float]]
"""Kernels and their weights."""


def mean_field(
    images: Sequence[Tensor],
    unaries: Sequence[Tensor],
    *,
    labels: int,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> list[Tensor]:
    """mean_field_batch in kernels."""
    if labels == 1:
        return [torch.ones_like(unary, dtype=torch.float32) for unary in unaries]
    sizes = tuple((image.shape[0], image.shape[1]) for image in images)
    firsts, total = first_pixels(sizes)
    energy = torch.zeros(total, len(unaries[0]), device=images[0].device)
    for first, unary in zip(firsts, unaries, strict=True):
        energy[first : first + unary[0].numel()] = unary.flatten(1).T
    lattices = (
        (gaussian_lattices(sizes, gaussian[0], images[0].device), gaussian[1]),
        (bilateral_lattices(images, *bilateral[:2]), bilateral[2]),
    )
    implied = energy.new_empty(total, 1)
    _send(lattices, torch.ones_like(implied), implied)
    rows = [slice(first, first + height * width) for first, (height, width) in zip(firsts, sizes, strict=True)]
    orders = None
    if energy.shape[1] == labels >= DROP_FROM and min(gaussian[1], bilateral[2]) >= 0:
        orders = _strong_first(energy, implied, rows, iterations)
    if orders is None:
        marginals = _infer(lattices, energy, implied, labels, iterations)
    else:
        marginals = _infer_strong(lattices, energy, rows, orders, iterations)
    return [marginals[own].T.reshape(-1, *size) for own, size in zip(rows, sizes, strict=True)]


def _infer(lattices: Weighted, energy: Tensor, implied: Tensor | None, labels: int, iterations: int) -> Tensor:
    """Marginals f32[pixels, G labels] of energies, which they overwrite.

    implied: messages of marginals of one everywhere, f32[pixels, 1]; None: the last label of each gets no message.
    """
    message = energy.new_empty(len(energy), energy.shape[1] // labels * (labels - 1))
    q = torch.empty_like(message)
    _update(energy, None, implied, energy if iterations == 0 else q, labels)
    for turn in range(iterations):
        _send(lattices, q, message)
        _update(energy, message, implied, energy if turn == iterations - 1 else q, labels)
    return energy


def _strong_first(
    energy: Tensor, implied: Tensor, rows: Sequence[slice], iterations: int
) -> tuple[list[np.ndarray], int] | None:
    """Labels of every image, those whose messages matter first, and most such labels; None where it does not pay.

    The one question that the device is asked; see label_bounds.
    """
    probabilities = (-energy).softmax(1)
    asked = torch.stack([torch.cat([probabilities[own].amax(0), implied[own].amax(0)]) for own in rows]).cpu().numpy()
    orders, most = [], 1
    for *strongest, reach in asked:
        weak = weak_labels(np.array(strongest, np.float32), float(reach), iterations)
        strong = np.setdiff1d(np.arange(energy.shape[1]), weak)
        orders.append(np.concatenate([strong, weak]))
        most = max(most, len(strong))
    return (orders, most) if padded_width(most) < padded_width(energy.shape[1] - 1) else None


def _infer_strong(
    lattices: Weighted,
    energy: Tensor,
    rows: Sequence[slice],
    orders: tuple[list[np.ndarray], int],
    iterations: int,
) -> Tensor:
    """_infer without messages of the weak labels, which together are one label; its marginal is divided among them."""
    labels, most = orders
    small = energy.new_zeros(len(energy), most + 1)
    places = [to_device(order, energy.device) for order in labels]
    for own, place in zip(rows, places, strict=True):
        ordered = energy[own].index_select(1, place)
        small[own, :most], small[own, most] = ordered[:, :most], -torch.logsumexp(-ordered[:, most:], 1)
    pooled = small[:, most:].clone()
    found = _infer(lattices, small, None, most + 1, iterations)
    for own, place in zip(rows, places, strict=True):
        shares = (pooled[own] - energy[own].index_select(1, place[most:])).exp()
        energy[own] = energy[own].index_copy(1, place, torch.cat([found[own, :most], found[own, most:] * shares], 1))
    return energy


def _send(lattices: Weighted, q: Tensor, message: Tensor) -> None:
    """Messages of all kernels, each times its weight."""
    for turn, (lattice, weight) in enumerate(lattices):
        lattice.filter(q, message, weight=weight, add=turn > 0)


def _update(energy: Tensor, message: Tensor | None, implied: Tensor | None, q: Tensor, labels: int) -> None:
    """Marginals of all labels over the energy where q is the energy; else all but the last of every labelling to q."""
    groups = energy.shape[1] // labels
    lanes = row_width(labels)
    rows, block = len(energy) * groups, max(TILE // lanes, 1)
    launch(
        update_kernel, (blocks(rows, block),), energy, energy if message is None else message,
        energy if implied is None else implied, q, rows, groups, labels,
        MESSAGES=int(message is not None), IMPLIED=int(implied is not None), WHOLE=int(q is energy),
        LANES=lanes, BLOCK=block,
    )  # fmt: skip
