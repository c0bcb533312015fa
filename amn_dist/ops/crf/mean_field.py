"""Mean field of a dense CRF with Potts labels on one core (amn 6)."""

from __future__ import annotations

import numpy as np

from amn_dist.ops.crf.label_bounds import divide_pooled, negligible_labels, pool_dropped
from amn_dist.ops.crf.lattice import Lattice, bilateral_lattice, gaussian_lattice, tile_order
from amn_dist.ops.crf.message_passing import Field, arrange, blur, iterate
from amn_dist.ops.crf.simd import LANES_4, LANES_8, LANES_16

LINE = 16
"""float32 in a cache line; rows must not straddle two."""


def mean_field(
    image: np.ndarray,
    unary: np.ndarray,
    *,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
    drop: bool = True,
) -> np.ndarray:
    """Marginals f32[G, L, H, W] of G labellings that share an image uint8[H, W, 3], from unaries f32[G, L, H, W].

    gaussian, bilateral: as in `dense_crf`. drop: leave out the messages of labels that cannot matter (label_bounds).
    """
    groups, labels, height, width = unary.shape
    kernels = (bilateral_lattice(image, *bilateral[:2]), gaussian_lattice(height, width, gaussian[0]))
    weights = np.array([bilateral[2], gaussian[1]], np.float32)
    order, channels = tile_order(height, width), groups * (labels - 1)
    planes = np.ascontiguousarray(unary).reshape(groups * labels, height * width)
    pixels = min(_row_width(channels), 8)
    (energy,) = _aligned(len(order) * groups * labels)
    arrange(planes, order, energy, pixels)
    field = Field(
        unary=energy,
        order=order,
        names=np.arange(groups * labels),
        ones=weights[0] * kernels[0].row_sums + weights[1] * kernels[1].row_sums,
        factors=weights * np.array([kernel.gain for kernel in kernels]),
        groups=groups,
        labels=labels,
        implied=True,
    )
    if drop and groups == 1 and channels > 8 and weights.min() >= 0:
        dropped = negligible_labels(energy, labels, float(field.ones.max()), iterations)
        if _padded(labels - len(dropped)) < _padded(channels):
            return _infer_strong(field, kernels, dropped, iterations, planes.shape).reshape(unary.shape)
    return _infer(field, kernels, iterations, np.empty_like(planes)).reshape(unary.shape)


def _infer(field: Field, kernels: tuple[Lattice, Lattice], iterations: int, result: np.ndarray) -> np.ndarray:
    """Marginals of every label into its row of result f32[rows, N]."""
    channels = field.groups * (field.labels - 1)
    row = {4: LANES_4, 8: LANES_8, 16: LANES_16}[_row_width(channels)]
    sizes = [kernel.points * len(row) for kernel in kernels]
    values = _aligned(*(size * (_padded(channels) // len(row)) for size in sizes * 2))
    read, write = (values[0], values[1]), (values[2], values[3])
    for turn in range(iterations + 1):
        last = turn == iterations
        iterate(field, *kernels, read, write, result, turn == 0, last, row, row[:8])
        if not last:
            for kernel, size, points in zip(kernels, sizes, write, strict=True):
                blur(points, size, kernel.chains, kernel.begins, row)
        read, write = write, read
    return result


def _infer_strong(
    field: Field, kernels: tuple[Lattice, Lattice], dropped: np.ndarray, iterations: int, shape: tuple[int, ...]
) -> np.ndarray:
    """The same without messages of the dropped labels, which together are one label."""
    strong = np.setdiff1d(np.arange(field.labels), dropped)
    (pooled,) = _aligned(len(field.order) * (len(strong) + 1))
    pool_dropped(field.unary, field.labels, strong, dropped, pooled, LANES_8)
    energy = pooled if _row_width(len(strong)) > 4 else _strips_of_four(pooled, len(strong) + 1)
    names = np.append(strong, field.labels)
    small = field._replace(
        unary=energy, names=names, ones=np.zeros_like(field.ones), labels=len(strong) + 1, implied=False
    )
    result = _infer(small, kernels, iterations, np.empty((shape[0] + 1, shape[1]), np.float32))
    divide_pooled(field.unary, field.labels, field.order, dropped, pooled, len(strong), result, LANES_8)
    return result[: field.labels]


def _strips_of_four(strips: np.ndarray, labels: int) -> np.ndarray:
    """Unaries in strips of 8 pixels, f32[P / 8, labels, 8], in strips of 4, as rows of 4 channels want them."""
    (halved,) = _aligned(strips.size)
    halved.reshape(-1, 2, labels, 4)[:] = strips.reshape(-1, labels, 2, 4).swapaxes(1, 2)
    return halved


def _row_width(channels: int) -> int:
    """Channels side by side: more would not stay in the cache while a block of them is blurred."""
    return 4 if channels <= 4 else 8 if channels <= 8 else 16


def _padded(channels: int) -> int:
    return -(-channels // _row_width(channels)) * _row_width(channels)


def _aligned(*sizes: int) -> list[np.ndarray]:
    """Uninitialised f32 arrays of these sizes that begin with a cache line, of one allocation (hence huge pages)."""
    begins = np.cumsum([0, *(-(-size // LINE) * LINE for size in sizes)])
    memory = np.empty(begins[-1] + LINE, np.float32)
    shift = -memory.ctypes.data // memory.itemsize % LINE
    return [memory[shift + begin :][:size] for begin, size in zip(begins[:-1], sizes, strict=True)]
