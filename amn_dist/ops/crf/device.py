"""Mean field of a dense CRF on a device, several images at once (amn 6); the same lattice as the compiled one.

On CUDA devices kernels do it (gpu.py); here is their twin in torch. N pixels of all images stand in one row, M lattice
points of all images in another; a point's key holds its image's number, so that images never meet. Splatting and
slicing are products with sparse N x M matrices, one addition after the other within a row: results repeat.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from amn_dist.ops.crf.permutohedral import check_span, feature_scales, key_strides
from amn_dist.ops.transfer import to_device

OFFSET = 1e-20
"""Added to the sums of kernel rows, as in the reference implementation."""


@dataclass(frozen=True)
class DeviceLattice:
    """Gaussian filter of all images' pixels; the roots of the kernel's row sums are part of the matrices."""

    splat: Tensor
    """Sparse f32[M, N]."""
    slice: Tensor
    """Sparse f32[N, M]."""
    ahead: Tensor
    """Every point's neighbour along every axis, i64[d + 1, M]; M where there is none."""
    behind: Tensor
    """Its neighbour against the axis."""
    gain: float

    def filter(self, q: Tensor) -> Tensor:
        """Filter channels f32[N, C]."""
        return self.slice @ self.blur(self.splat @ q) * self.gain

    def blur(self, values: Tensor) -> Tensor:
        """Blur values f32[M, C] along all axes."""
        nothing = values.new_zeros(1, values.shape[1])
        for ahead, behind in zip(self.ahead, self.behind, strict=True):
            padded = torch.cat([values, nothing])
            values = values + 0.5 * (padded[ahead] + padded[behind])
        return values


def mean_field_batch(
    images: Sequence[Tensor],
    unaries: Sequence[Tensor],
    *,
    labels: int,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> list[Tensor]:
    """Marginals f32[G labels, H, W] of every image, on the images' device.

    images: uint8[H, W, 3], of any sizes. unaries: f32[G labels, H, W], G labellings behind one another, equally many
    everywhere. gaussian, bilateral: as in `dense_crf`.
    """
    if images[0].is_cuda:
        from amn_dist.ops.crf.gpu import mean_field

        return mean_field(images, unaries, labels=labels, gaussian=gaussian, bilateral=bilateral, iterations=iterations)
    sizes = tuple((image.shape[0], image.shape[1]) for image in images)
    device = images[0].device
    energy = torch.cat([unary.flatten(1).T for unary in unaries])
    energy = energy.reshape(len(energy), -1, labels)
    kernels = (
        (gaussian_batch(sizes, gaussian[0], device), gaussian[1]),
        (bilateral_batch(images, *bilateral[:2]), bilateral[2]),
    )
    q = torch.softmax(-energy, -1)
    for _ in range(iterations):
        message = sum(weight * kernel.filter(q.flatten(1)) for kernel, weight in kernels)
        q = torch.softmax(torch.as_tensor(message).reshape(q.shape) - energy, -1)
    parts = q.flatten(1).split([height * width for height, width in sizes])
    return [part.T.reshape(-1, *size) for part, size in zip(parts, sizes, strict=True)]


@lru_cache(maxsize=8)
def gaussian_batch(sizes: tuple[tuple[int, int], ...], deviation: float, device: torch.device) -> DeviceLattice:
    """The kernel over positions for images of these sizes; deviation in pixels."""
    features = [_positions(size, deviation, device) for size in sizes]
    return _lattice(features, np.array(sizes).max(0)[::-1] / deviation)


def bilateral_batch(images: Sequence[Tensor], position: float, colour: float) -> DeviceLattice:
    """The kernel over positions and colours of images uint8[H, W, 3]; deviations in pixels and in 0..255."""
    features = []
    for image in images:
        colours = image.reshape(-1, 3).float() / _divisor(colour, image.device)
        positions = _positions((image.shape[0], image.shape[1]), position, image.device)
        features.append(torch.cat([positions, colours], 1))
    size = np.array([image.shape[:2] for image in images]).max(0)[::-1]
    return _lattice(features, np.array([*size / position, *[255 / colour] * 3]))


def _positions(size: tuple[int, int], deviation: float, device: torch.device) -> Tensor:
    divisor = _divisor(deviation, device)
    y, x = (torch.arange(length, device=device, dtype=torch.float32) / divisor for length in size)
    return torch.stack([x.expand(size), y[:, None].expand(size)], -1).reshape(-1, 2)


def _divisor(value: float, device: torch.device) -> Tensor:
    """A number to divide by: on the device, since CUDA multiplies by the rounded reciprocal of one on the host.

    A quotient that is off by its last digit puts pixels on the border of a simplex to the other side.
    """
    return torch.full((), value, dtype=torch.float32, device=device)


def _lattice(features: Sequence[Tensor], highest: np.ndarray) -> DeviceLattice:
    strides, span = key_strides(highest)
    check_span(span, len(features))
    # As in `lattice`, an image whose pixels do not fill fours has the points around zero features, too.
    zeros = torch.zeros_like(features[0][:1])
    numbered = list(enumerate(features)) + [(n, zeros) for n, feature in enumerate(features) if len(feature) % 4]
    embedded = [_embed(feature, strides) for _, feature in numbered]
    keys = torch.cat([keys + number * span for (number, _), (keys, _) in zip(numbered, embedded, strict=True)])
    weights = torch.cat([weights for _, weights in embedded[: len(features)]])
    points, offsets = torch.unique(keys, return_inverse=True)
    offsets = offsets[: len(weights)]
    ahead, behind = _neighbours(points, strides)
    gain = 1 / (1 + 2.0 ** -len(highest))
    plain = DeviceLattice(*_matrices(offsets, weights, len(points)), ahead, behind, gain)
    sums = plain.filter(weights.new_ones(len(offsets), 1))
    return DeviceLattice(*_matrices(offsets, weights / (sums + OFFSET).sqrt(), len(points)), ahead, behind, gain)


def _embed(features: Tensor, strides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Keys i64[N, d + 1] and barycentric weights f32[N, d + 1] of the vertices around features f32[N, d].

    Every operation rounds to float32 in the order of `permutohedral.embed`.
    """
    count, vertices = len(features), len(strides)
    scaled = features * to_device(feature_scales(vertices - 1), features.device)
    above, columns = features.new_zeros(count), []
    for axis in range(vertices - 1, 0, -1):
        columns.append(above - scaled[:, axis - 1] * axis)
        above = above + scaled[:, axis - 1]
    elevated = torch.stack([above, *reversed(columns)], 1)
    down = float(np.float32(1) / np.float32(vertices))
    rounded = torch.round(elevated * down)
    remainder = rounded * vertices
    offset = elevated - remainder
    # Stable, so that of equal offsets the earlier axis comes first, as there.
    order = offset.sort(dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(vertices, device=order.device).expand_as(order))
    rank = rank + rounded.sum(1, keepdim=True).long()
    shift = vertices * ((rank < 0).long() - (rank >= vertices).long())
    rank, remainder = rank + shift, remainder + shift
    offset = (elevated - remainder) * down
    ordered = torch.empty_like(offset).scatter_(1, rank, offset)
    weights = torch.empty_like(offset)
    weights[:, 0] = ordered[:, -1] + (1 - ordered[:, 0])
    weights[:, 1:] = (ordered[:, :-1] - ordered[:, 1:]).flip(1)
    stride = to_device(np.array(strides), features.device)
    key = (remainder.long() * stride).sum(1, keepdim=True)
    owner = torch.empty_like(rank).scatter_(1, rank, stride.expand_as(rank))
    steps = (stride.sum() - vertices * owner).flip(1)[:, :-1].cumsum(1)
    return torch.cat([key, key + steps], 1), weights


def _neighbours(points: Tensor, strides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Followers and predecessors i64[d + 1, M] of ascending keys along every axis; M where there is none."""
    none = len(points)
    ahead = points.new_full((len(strides), none), none)
    behind = points.new_full((len(strides), none + 1), none)
    for axis, stride in enumerate(strides):
        neighbour_keys = points + sum(strides) - len(strides) * stride
        index = torch.searchsorted(points, neighbour_keys).clamp(max=none - 1)
        ahead[axis] = torch.where(points[index] == neighbour_keys, index, none)
        behind[axis].scatter_(0, ahead[axis], torch.arange(none, device=points.device))
    return ahead, behind[:, :-1]


def _matrices(offsets: Tensor, weights: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Sparse splat f32[M, N] and slice f32[N, M] with N pixels' weights f32[N, d + 1] at points i64[N, d + 1]."""
    count, vertices = offsets.shape
    point, order = offsets.flatten().sort(stable=True)
    begins = torch.searchsorted(point, torch.arange(points + 1, device=offsets.device))
    rows = torch.arange(0, count * vertices + 1, vertices, device=offsets.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
        return (
            torch.sparse_csr_tensor(begins, order // vertices, weights.flatten()[order], (points, count)),
            torch.sparse_csr_tensor(rows, offsets.flatten(), weights.flatten(), (count, points)),
        )
