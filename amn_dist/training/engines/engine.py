"""Who steps the optimiser: what the loop needs of an engine, and the choice between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from amn_dist.interfaces import Fit
from amn_dist.records import Batch
from amn_dist.training.world import World, membership

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import EngineSection


class Engine(Protocol):
    """A network with its optimiser. The sum of the losses over pieces and ranks is the loss of the global batch.

    initial_rates: learning rate of every optimiser group before the schedule. guards: whether `update` can be told by
    its device to leave the weights alone. norm: of the global gradient, a scalar, after an update.
    """

    network: nn.Module
    guards: bool
    initial_rates: list[float]
    norm: Tensor

    def accumulate(self, pieces: Sequence[Batch], pooled: Tensor) -> Iterator[dict[str, Tensor]]:
        """Forward and backward of every piece, then the sum of the gradients over the ranks; yields the parts of the
        loss of every piece, detached.

        Every rank must hand over as many pieces, and exhaust the iterator before `update`.
        """
        ...

    def update(self, factor: float, spoiled: Tensor | None = None) -> None:
        """Step the optimiser on the gradient summed over pieces and ranks, at `factor` times the initial rates.

        spoiled: f32[] on the device, for engines that guard; where it is 1, weights and moments stay as they are.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimiser into an empty folder that all ranks see; every rank calls it."""
        ...

    def load(self, folder: Path) -> None:
        """Restore what any engine's `save` wrote, on any number of ranks; every rank calls it."""
        ...

    def close(self) -> None:
        """Let go of everything without asking other ranks; the engine cannot be used any more."""
        ...


@contextmanager
def joined(section: EngineSection) -> Iterator[World]:
    """The launcher's processes (world.membership) for the configured engine, which must be closed inside."""
    with ExitStack() as stack:
        if section.name != "deepspeed":
            yield stack.enter_context(membership(timeout_s=section.timeout_s))
            return
        # Before the world is joined: default arguments in there would keep its process group.
        from amn_dist.training.engines.deepspeed import forget_groups

        world = stack.enter_context(membership(timeout_s=section.timeout_s))
        stack.callback(forget_groups)
        yield world


def build_engine(fit: Fit, section: EngineSection, world: World, *, pieces: int) -> Engine:
    """The configured engine around a new network. pieces: micro-batches a step on every rank."""
    if section.name == "deepspeed":
        from amn_dist.training.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(fit, section, world, pieces=pieces)
    from amn_dist.training.engines.torch import TorchEngine

    return TorchEngine(fit, section, world)
