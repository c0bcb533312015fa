"""Losses of the intra-class discriminator, summed over the images of a batch (icd 4.6)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

BOTTOM_UP = 5.0
"""Weight of the mean squared score."""
CLEAR = 0.2
"""Share of a map's peak (of its sign) below which a target says nothing."""
EPSILON = 1e-5
"""Least divisor of a peak."""


def classification_part(cam: Tensor, tags: Tensor, inside: Tensor | None = None) -> Tensor:
    """Sum over images and classes of the logistic loss of the mean CAM logits. cam: f32[B, C-1, h, w]."""
    return functional.binary_cross_entropy_with_logits(_mean(cam, inside), tags, reduction="sum")


def bottom_up_part(score: Tensor, tags: Tensor, inside: Tensor | None = None) -> Tensor:
    """Minus the mean squared score of the class, over images of one class alone: its directions turn to the largest
    second moment. score: f32[B, C-1, h, w], bearing gradient to the directions alone.
    """
    alone = tags * (tags.sum(1, keepdim=True) == 1)
    return -BOTTOM_UP * (alone * _mean(score**2, inside)).sum()


def top_down_part(logits: Tensor, target: Tensor, tags: Tensor, inside: Tensor | None = None) -> Tensor:
    """Sum over images and their classes of the mean logistic loss where the target is clear.

    logits, target: f32[B, C-1, h, w]; the sign of the target says on which side a cell lies.
    """
    clear = signed_share(target if inside is None else target * inside)
    loss = functional.binary_cross_entropy_with_logits(logits, (clear > 0).to(logits.dtype), reduction="none")
    return (tags * _mean(loss * (clear.abs() > CLEAR), inside)).sum()


def signed_share(target: Tensor) -> Tensor:
    """Each map f32[..., h, w] over the peak of its own sign, in [-1, 1]."""
    high = target.amax((-2, -1), keepdim=True).clamp(min=EPSILON)
    low = target.amin((-2, -1), keepdim=True).clamp(max=-EPSILON)
    return target.clamp(min=0) / high - target.clamp(max=0) / low


def _mean(values: Tensor, inside: Tensor | None) -> Tensor:
    """Mean over the cells that count, [B, C-1]."""
    if inside is None:
        return values.mean((2, 3))
    return (values * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)
