"""Random walk inside edges, and the masks it yields (amn 1.5, 3.4).

T is the symmetric affinity A with columns divided by their sums d. With S = d^-1/2 A d^-1/2, whose spectrum lies in
[-1, 1], x T^n = (x d^1/2) S^n d^-1/2, and t^n = sum_k c_k T_k(t) with binomial c_k. Leaving out those that add up to
TAIL = 1e-8, 256 steps cost 90 products; the error stays below TAIL |x d^1/2|, which is 1e-5 of the largest x on 10^4
cells at the very worst (d <= 69, norms instead of maxima). Few steps keep the whole sum, which is exact and no dearer
than stepping. Maps on a CUDA device are walked there, many images at once; all others on one core, where the similar
P = d^-1 A takes the place of S and every product is a sum over differences of neighbours (cpu.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.errors import ConfigError
from amn_dist.ops.arrays import Array, as_array, as_floats, same_kind
from amn_dist.ops.transfer import all_to_device
from amn_dist.ops.walk.cpu import walk
from amn_dist.records import grid_size

Values = np.ndarray | Tensor


def random_walk(activation: Array, edge: Array, *, radius: int = 5, beta: float = 10.0, steps: int = 256) -> Array:
    """Activation spread by a random walk that edges stop: x (1 - E) T^steps, f32[K, h, w].

    activation: f32[K, h, w]. edge: f32[h, w] in [0, 1]. radius: cells; pairs nearer than that are linked. beta: power
    of the affinity before columns are normalised. Agrees with the dense float64 product to 1e-5 of the maximum.
    """
    return random_walks([activation], [edge], radius=radius, beta=beta, steps=steps)[0]


def random_walks(
    activations: Sequence[Array], edges: Sequence[Array], *, radius: int = 5, beta: float = 10.0, steps: int = 256
) -> list[Array]:
    """random_walk of several images, each of its own size and number of classes."""
    for activation, edge in zip(activations, edges, strict=True):
        if edge.shape != activation.shape[-2:]:
            expected = f"{tuple(activation.shape[-2:])}, the grid of the activation"
            raise ConfigError(f"random_walk: found edge {tuple(edge.shape)}, expected {expected}")
    if activations and all(on_device(x) for x in (*activations, *edges)):
        from amn_dist.ops.walk.gpu import walks

        maps, barriers = cast(Sequence[Tensor], activations), cast(Sequence[Tensor], edges)
        return cast(list[Array], walks(maps, barriers, radius=radius, beta=float(beta), steps=steps))
    return [_walk(x, edge, radius, float(beta), steps) for x, edge in zip(activations, edges, strict=True)]


def pseudo_mask(
    activation: Array,
    edge: Values,
    classes: Values,
    size: tuple[int, int],
    *,
    background: float = 0.25,
    power: float = 1.3,
    radius: int = 5,
    beta: float = 10.0,
    steps: int = 256,
) -> Array:
    """Pseudo-mask uint8[H, W] of an image (amn 1.5).

    activation: [K, h, w] in [0, 1]. edge: [h, w]. classes: [K] 1-based. size: (H, W). background: threshold on the
    walked map over its maximum of all classes. power: the activation is raised to it first. An image without classes,
    or whose walk is zero everywhere, is background.
    """
    settings = {"background": background, "power": power, "radius": radius, "beta": beta, "steps": steps}
    return pseudo_masks([activation], [edge], [classes], [size], **settings)[0]  # type: ignore[arg-type]


def pseudo_masks(
    activations: Sequence[Array],
    edges: Sequence[Values],
    classes: Sequence[Values],
    sizes: Sequence[tuple[int, int]],
    *,
    background: float = 0.25,
    power: float = 1.3,
    radius: int = 5,
    beta: float = 10.0,
    steps: int = 256,
) -> list[Array]:
    """pseudo_mask of several images; those on a CUDA device never leave it."""
    for activation, present, size in zip(activations, classes, sizes, strict=True):
        _check_grid(tuple(activation.shape), len(present), size)
    tagged = [i for i, present in enumerate(classes) if len(present)]
    starts = [torch.as_tensor(activations[i]).float() ** power for i in tagged]
    barriers = [torch.as_tensor(edges[i]).float() for i in tagged]
    walked = dict(zip(tagged, random_walks(starts, barriers, radius=radius, beta=beta, steps=steps), strict=True))
    if not activations:
        return []
    device = next((x.device for x in activations if isinstance(x, Tensor)), torch.device("cpu"))
    names = all_to_device([_names(present) for present in classes], device)
    masks = [
        _labels(walked.get(i), name, size, background) for i, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    return [_like(mask, activation) for mask, activation in zip(masks, activations, strict=True)]


def walk_scores(walked: Tensor, size: tuple[int, int], *, background: float) -> Tensor:
    """The planes whose argmax is the pseudo-mask: background threshold and walked maps f32[K, h, w] over their maximum.

    Returns f32[K + 1, H, W], where the walk lies.
    """
    height, width = size
    fine = functional.interpolate(walked[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    fine = fine[:, :height, :width]
    highest = fine.amax()
    scores = torch.where(highest > 0, fine / highest, 0)
    return torch.cat([scores.new_full((1, height, width), background), scores])


def on_device(values: Values) -> bool:
    """Whether the values lie on a CUDA device."""
    return isinstance(values, Tensor) and values.is_cuda


def _check_grid(found: tuple[int, ...], count: int, size: tuple[int, int]) -> None:
    expected = (count, *grid_size(*size))
    if found != expected:
        raise ConfigError(f"pseudo_mask: found activation {found}, expected {expected} for {size} pixels")


def _walk(activation: Array, edge: Array, radius: int, beta: float, steps: int) -> Array:
    x, barrier = as_floats(activation), as_floats(edge)
    walked = walk(x * (1 - barrier), barrier, radius=radius, beta=beta, steps=steps)
    return same_kind(walked, activation)


def _names(classes: Values) -> np.ndarray:
    """Ids uint8[K + 1] of the planes of walk_scores."""
    return np.concatenate([[0], as_array(classes)]).astype(np.uint8)


def _labels(walked: Tensor | None, names: Tensor, size: tuple[int, int], background: float) -> Tensor:
    if walked is None:
        return names.new_zeros(size)
    return names[walk_scores(walked, size, background=background).argmax(0)]


def _like(mask: Tensor, subject: Array) -> Array:
    return mask.to(subject.device) if isinstance(subject, Tensor) else mask.numpy()
