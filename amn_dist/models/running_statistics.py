"""Statistics that a network gathers over the ranks and micro-batches of a step, and averages over steps (icd 4.2, 4.4).

A step may come in pieces: what the pieces sum up to enters the running average once, in end_step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from amn_dist.models.rank_sum import rank_sum

MOMENTUM = 0.9
"""Share of the old average that a step keeps."""
EPSILON = 1e-5
"""Added to a variance."""


class FeatureNorm(nn.Module):
    """Batch norm with a trained shift and without a gain; statistics over all ranks, variance biased (icd 4.2)."""

    running_mean: Tensor
    running_var: Tensor
    sums: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        # Of the step so far: counts, sums and sums of squares.
        self.register_buffer("sums", torch.zeros(3, channels, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        """Normalise f32[B, c, h, w]; in training by this piece's own statistics. inside: bool[B, 1, h, w] to count."""
        # Centred first: x gain - mean gain would lose the digits that a mean of many deviations takes.
        if self.training:
            centred, rest, variance = self._moments(x, inside)
        else:
            centred, rest, variance = (
                x - self.running_mean[:, None, None],
                torch.zeros_like(self.bias),
                self.running_var,
            )
        gain = torch.rsqrt(variance + EPSILON)
        return centred * gain[:, None, None] + (self.bias - rest * gain)[:, None, None]

    def end_step(self) -> None:
        """Take the statistics of the step into the running ones."""
        count, total, squares = self.sums
        some = count.clamp(min=1)
        mean = total / some
        for running, of_step in ((self.running_mean, mean), (self.running_var, squares / some - mean**2)):
            moved = torch.lerp(running, of_step.to(running.dtype), 1 - MOMENTUM)
            running.copy_(torch.where(count > 0, moved, running))
        self.sums.zero_()

    def _moments(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The map minus its mean as float32 has it, what that rounding leaves of the mean, and the variance."""
        weight = x.new_ones(()) if inside is None else inside.to(x.dtype)
        cells = weight.sum() if inside is not None else x.new_full((), x.numel() / x.shape[1])
        sums = rank_sum(torch.cat([(x * weight).sum((0, 2, 3)), cells[None]]).detach())
        count = sums[-1].clamp(min=1)
        mean = sums[:-1] / count
        centred = x - mean[:, None, None]
        counted = centred * weight
        rest, squares = rank_sum(torch.stack([counted.sum((0, 2, 3)), (centred * counted).sum((0, 2, 3))])) / count
        variance = (squares - rest**2).clamp(min=0)
        self._gather(count, mean.double() + rest.double(), variance)
        return centred, rest, variance

    @torch.no_grad()
    def _gather(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        mean, variance = mean.double(), variance.double()
        self.sums += torch.stack([count.double().expand_as(mean), count * mean, count * (variance + mean**2)])


class SignStatistics(nn.Module):
    """Which side of each class's direction is the object: the one where CAM is stronger, on average (icd 4.4)."""

    running: Tensor
    sums: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("running", torch.zeros(classes, 2))
        self.register_buffer("sums", torch.zeros(3, classes), persistent=False)

    @torch.no_grad()
    def forward(self, score: Tensor, cam: Tensor, tags: Tensor, inside: Tensor | None = None) -> Tensor:
        """Sign of each class, f32[C-1] of -1 and 1; in training after this piece is counted.

        score, cam: f32[B, C-1, h, w]. tags: [B, C-1]. inside: bool[B, 1, h, w] to count.
        """
        if self.training:
            self.sums += rank_sum(self._sides(score, cam.clamp(min=0), tags, inside))
        return self.signs()

    def signs(self) -> Tensor:
        """Sign of each class by all that was counted, f32[C-1] of -1 and 1."""
        positive, negative = self._averages().T
        return torch.where(positive < negative, -1.0, 1.0)

    def end_step(self) -> None:
        """Take the statistics of the step into the running ones."""
        self.running.copy_(self._averages())
        self.sums.zero_()

    def _sides(self, score: Tensor, cam: Tensor, tags: Tensor, inside: Tensor | None) -> Tensor:
        """Sums over images of the mean CAM on the positive and on the negative side, and counts: f32[3, C-1]."""
        sums = []
        for side in (score > 0, score < 0):
            side = side if inside is None else side & inside
            means = (cam * side).sum((2, 3)) / side.sum((2, 3)).clamp(min=1)
            sums.append((tags * means).sum(0))
        return torch.stack([*sums, tags.sum(0)])

    def _averages(self) -> Tensor:
        positive, negative, count = self.sums
        of_step = torch.stack([positive, negative], 1) / count.clamp(min=1)[:, None]
        present = (count > 0)[:, None]
        return torch.where(present, MOMENTUM * self.running + (1 - MOMENTUM) * of_step, self.running)
