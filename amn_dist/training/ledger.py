"""What the steps of a Fit lost. On a CPU the host looks before every update; on a device it looks now and then.

A device does not wait to be asked: it sums the losses over the ranks, finds out by itself whether they are finite, and
leaves the weights alone from the first step on whose losses are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from amn_dist.errors import StageError
from amn_dist.training.world import World

NAMED_KEYS = 32
"""Keys an error message spells out."""
LOOK_EVERY = 10
"""Steps between two looks of the host at what a device has written down, at most."""


@dataclass(frozen=True, slots=True)
class StepLosses:
    """The losses of one step, where they were computed.

    step: counted from 0. names: of n parts. sums: f64[n + 1], parts of the global loss and how many ranks were asked to
    stop, the same on every rank. local: f64[pieces, n] of this rank. keys: of the samples in each of its pieces.
    """

    step: int
    names: tuple[str, ...]
    sums: Tensor
    local: Tensor
    keys: tuple[tuple[str, ...], ...]

    @property
    def bad_keys(self) -> list[str]:
        """Samples of this rank's pieces with a loss that is not finite."""
        rows = self.local.isfinite().all(1).tolist()
        return [key for keys, finite in zip(self.keys, rows, strict=True) if not finite for key in keys]


def sum_losses(
    parts: list[dict[str, Tensor]], keys: list[tuple[str, ...]], *, step: int, stop: bool, world: World
) -> StepLosses:
    """Sum a step's losses over pieces and ranks; parts: by piece, detached. Every rank calls it."""
    names = tuple(parts[0])
    local = torch.stack([torch.stack([of_piece[name].double() for name in names]) for of_piece in parts])
    asked = local.new_full((1,), float(stop))
    return StepLosses(step, names, world.sum(torch.cat([local.sum(0), asked])), local, tuple(keys))


@dataclass
class Ledger:
    """The steps of a Fit, and what the host knows of them. name: of the Fit.

    unread: steps that the host has not looked at. spoiled: f32[] on the device. parts: of the global loss of the last
    step that was looked at. stopping: whether any rank was asked to stop in the steps of the last look.
    """

    name: str
    world: World
    unread: list[StepLosses] = field(default_factory=list)
    spoiled: Tensor | None = None
    parts: dict[str, float] = field(default_factory=dict)
    stopping: bool = False

    def note(self, losses: StepLosses) -> Tensor:
        """Write a step down without looking at it.

        Returns f32[], 1 when the losses of this or an earlier step were not finite, on their device.
        """
        bad = (~losses.sums.isfinite().all()).float()
        self.spoiled = bad if self.spoiled is None else torch.maximum(self.spoiled, bad)
        self.unread.append(losses)
        return self.spoiled

    def read(self) -> None:
        """Look at what was written down since the last look; the device is waited for once. Every rank calls it.

        Raises StageError for the first step whose losses are not finite.
        """
        if not self.unread:
            return
        unread, self.unread = self.unread, []
        table = torch.stack([losses.sums for losses in unread]).tolist()
        for losses, sums in zip(unread, table, strict=True):
            if not all(map(math.isfinite, sums)):
                raise self._not_finite(losses, sums)
        self.parts = dict(zip(unread[-1].names, table[-1], strict=False))
        self.stopping = any(sums[-1] > 0 for sums in table)

    def _not_finite(self, losses: StepLosses, sums: list[float]) -> StageError:
        """The same error on every rank."""
        keys = self.world.gather(losses.bad_keys)
        named = ", ".join(keys[:NAMED_KEYS]) + (f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else "")
        parts = ", ".join(f"{name} {value:g}" for name, value in zip(losses.names, sums, strict=False))
        return StageError(
            f"{self.name}: step {losses.step + 1}: the loss is not finite ({parts}) with {named}; it was not stepped "
            "on; lower the rates or look at these samples"
        )
