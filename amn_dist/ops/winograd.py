"""3x3 convolution with a quarter of the multiplications: Winograd's F(4x4, 3x3), for CPUs, in float32.

An output tile of 4x4 pixels takes 6x6 inputs. Both are polynomials evaluated at 0, 1, -1, 2, -2 and infinity along each
axis; at each of these 36 points a convolution is one matrix product over channels (Lavin and Gray 2016, section 4).
Agrees with the direct sums to about 1e-5 of their largest value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from amn_dist.ops.threads import in_parts
from amn_dist.ops.winograd_tiles import LANES, gather, spread

TILE = 4
"""Output pixels of a tile along an axis."""
POINTS = 36
"""Products a tile takes per pair of channels; the direct sum takes 144."""
CACHED = 2**21
"""Values of transformed inputs and products held at once: what a core's share of the last cache takes."""
FEWEST_TILES = 160
"""Tiles a band has at least, so that the weights are not reread too often."""
FEWEST_IN_PART = 16
"""Tiles of a band that are worth a thread."""

KERNEL_AT_POINTS = np.array([(6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24)]) / 24
"""A kernel's three taps at the six points of an axis."""
TAPS_AT_POINTS = torch.from_numpy(np.kron(KERNEL_AT_POINTS, KERNEL_AT_POINTS)).float()
"""A kernel's nine taps at the 36 points, f32[36, 9]."""

_LOWEST = np.float32(-np.inf)


def can_use_winograd(conv: nn.Conv2d) -> bool:
    """Whether Winograd's products make this convolution: 3x3, of stride 1, padded by its dilation."""
    plain = (conv.kernel_size, conv.stride, conv.groups, conv.padding_mode) == ((3, 3), (1, 1), 1, "zeros")
    around = conv.padding == conv.dilation and conv.dilation[0] == conv.dilation[1]
    return plain and around and conv.in_channels % LANES == 0 and conv.out_channels % LANES == 0


def winograd_weights(weight: Tensor) -> Tensor:
    """Transform convolution weights f32[O, I, 3, 3] for winograd_conv: f32[36, I, O]."""
    taps = weight.detach().permute(2, 3, 1, 0)
    return (TAPS_AT_POINTS @ taps.reshape(9, -1)).view(POINTS, *taps.shape[2:])


def winograd_conv(
    x: Tensor, weights: Tensor, bias: Tensor | None = None, *, relu: bool = False, dilation: int = 1
) -> Tensor:
    """3x3 convolution of stride 1, padded with as many zeros as its dilation, f32[B, O, H, W] in channels_last.

    x: f32[B, I, H, W]. weights: of winograd_weights; I and O multiples of LANES. bias: f32[O].
    """
    channels_in, channels_out = weights.shape[1:]
    images = _phases(x, dilation)
    count, height, width, _ = images.shape
    out = torch.empty((count, channels_out, height, width), memory_format=torch.channels_last)
    target = out.permute(0, 2, 3, 1).numpy()
    added = (torch.zeros(channels_out) if bias is None else bias.detach()).numpy()
    lowest = np.float32(0) if relu else _LOWEST
    for band, inputs, products in _bands(images, channels_in, channels_out):
        _to_points(spread, images, band, inputs)
        torch.bmm(inputs, weights, out=products)
        _to_pixels(products, band, added, lowest, target)
    return out if dilation == 1 else _from_phases(out, dilation, x.shape[2], x.shape[3])


def _phases(x: Tensor, dilation: int) -> Tensor:
    """Pixels f32[B * dilation^2, H', W', C] that a dilated kernel sees as neighbours, filled up with zeros."""
    x = x.detach().contiguous(memory_format=torch.channels_last)
    if dilation == 1:
        return x.permute(0, 2, 3, 1)
    height, width = x.shape[2:]
    filled = pad(x, (0, -width % dilation, 0, -height % dilation)).permute(0, 2, 3, 1)
    cut = filled.unflatten(2, (-1, dilation)).unflatten(1, (-1, dilation))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).contiguous()


def _from_phases(phases: Tensor, dilation: int, height: int, width: int) -> Tensor:
    """The map f32[B, C, height, width] whose phases f32[B * dilation^2, C, H', W'] these are, in channels_last."""
    cut = phases.unflatten(0, (-1, dilation, dilation)).permute(0, 3, 4, 1, 5, 2)
    filled = cut.flatten(4, 5).flatten(2, 3)
    return filled[:, :, :height, :width].contiguous(memory_format=torch.channels_last)


def _bands(images: Tensor, channels_in: int, channels_out: int) -> Iterator[tuple[range, Tensor, Tensor]]:
    """Tiles of images [B, H, W, I] in turn, with room for their inputs f32[36, n, I] and products f32[36, n, O]."""
    count, height, width, _ = images.shape
    tiles = count * -(-height // TILE) * -(-width // TILE)
    most = min(max(CACHED // (POINTS * (channels_in + channels_out)), FEWEST_TILES), tiles)
    rows = most | 1  # odd, so that the 36 planes do not fall on the same lines of the cache
    inputs, products = torch.empty(POINTS, rows, channels_in), torch.empty(POINTS, rows, channels_out)
    for first in range(0, tiles, most):
        band = range(first, min(first + most, tiles))
        yield band, inputs[:, : len(band)], products[:, : len(band)]


def _to_points(transform: Any, images: Tensor, band: range, planes: Tensor) -> None:
    pixels, values = images.numpy(), planes.numpy()
    _in_parts(band, lambda part, rows: transform(pixels, part.start, part.stop, values[:, rows]))


def _to_pixels(products: Tensor, band: range, bias: np.ndarray, lowest: np.float32, out: np.ndarray) -> None:
    values = products.numpy()
    _in_parts(band, lambda part, rows: gather(values[:, rows], bias, lowest, part.start, part.stop, out))


def _in_parts(band: range, work: Callable[[range, slice], object]) -> None:
    """Call work(tiles, their rows in the band) on as many parts of a band as torch has threads."""
    in_parts(len(band), lambda first, last: work(band[first:last], slice(first, last)), fewest=FEWEST_IN_PART)
