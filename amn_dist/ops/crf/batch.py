"""Dense CRFs of many images on a device, as many at a time as memory is held for (amn 6).

Images of one batch may have different numbers of labels: those that are missing have an energy at which their marginal
is zero, so that the others are what they are alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.ops.crf.dense import DEEPLAB, FLOOR, _bgr
from amn_dist.ops.crf.device import mean_field_batch

BATCH_VALUES = 2**26
"""Marginals of a batch, f32; a dozen arrays of that size exist at once."""
LATTICE_VALUES = 16
"""Values a pixel's place in the two lattices takes, whatever the number of labels."""
ABSENT = 1e4
"""Energy of a label that an image does not have."""


def batched_crf(
    images: Sequence[Tensor],
    unaries: Sequence[Tensor],
    *,
    gaussian: tuple[float, float] = (3, 3),
    bilateral: tuple[float, float, float] = (50, 5, 10),
    iterations: int = 10,
) -> Iterator[tuple[int, Tensor]]:
    """dense_crf of images uint8[H, W, 3] and unaries f32[G, L, H, W] of one device, G the same for all.

    Yields the place of every image and its marginals f32[G, L, H, W], batch by batch: those of few labels first.
    """
    for batch in batches([unary.numel() for unary in unaries], [unary[0, 0].numel() for unary in unaries]):
        labels = max(unaries[place].shape[1] for place in batch)
        marginals = mean_field_batch(
            [images[place] for place in batch],
            [_filled_up(unaries[place], labels).flatten(0, 1) for place in batch],
            labels=labels,
            gaussian=gaussian,
            bilateral=bilateral,
            iterations=iterations,
        )
        for place, of_image in zip(batch, marginals, strict=True):
            yield place, of_image.unflatten(0, (-1, labels))[:, : unaries[place].shape[1]]


def batches(values: Sequence[int], pixels: Sequence[int]) -> Iterator[list[int]]:
    """Places of images of so many marginals and pixels, put together as BATCH_VALUES allows; one at least."""
    batch: list[int] = []
    widest = 0.0
    for place in sorted(range(len(values)), key=lambda place: values[place] / pixels[place]):
        widest = max(values[place] / pixels[place], LATTICE_VALUES)
        if batch and widest * sum(pixels[one] for one in (*batch, place)) > BATCH_VALUES:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def deeplab_crfs(images: Sequence[Tensor], probabilities: Sequence[Tensor], *, wrap_image: bool) -> list[Tensor]:
    """Labels uint8[H, W] of deeplab_crf of RGB images uint8[H, W, 3] and probabilities f32[C, H, W] on a device."""
    pixels = [_bgr(image, wrap_image) for image in images]
    unaries = [-torch.log(one.clamp(FLOOR, 1))[None] for one in probabilities]
    refined = batched_crf(pixels, unaries, **DEEPLAB)
    labels = {place: marginals[0].argmax(0).to(torch.uint8) for place, marginals in refined}
    return [labels[place] for place in range(len(images))]


def label_energies(labels: Tensor, count: int, certainty: float) -> Tensor:
    """-log of `certainty` for the own of `count` labels, of an equal share of the rest for the others.

    labels: int[..., H, W]. Returns f32[..., count, H, W].
    """
    own, other = -math.log(certainty), -math.log((1 - certainty) / (count - 1))
    decided = torch.arange(count, device=labels.device)[:, None, None] == labels[..., None, :, :]
    return torch.where(decided, own, other)


def _filled_up(unary: Tensor, labels: int) -> Tensor:
    return functional.pad(unary, (0, 0, 0, 0, 0, labels - unary.shape[1]), value=ABSENT)
