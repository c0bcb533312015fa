"""Torch's own ways to train on several processes, behind the steps that our engines offer (training/engines)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from amn_dist.interfaces import Fit
from amn_dist.records import Batch
from amn_dist.training.network import training_network
from amn_dist.training.optimiser import freeze_others, make_optimiser, set_rates
from amn_dist.training.world import World


class Stepping(Protocol):
    """What is raced of an engine, and what makes another one go on where it stands."""

    network: nn.Module

    def accumulate(self, pieces: Sequence[Batch], pooled: Tensor) -> Iterator[dict[str, Tensor]]: ...
    def update(self, factor: float) -> None: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...
    def close(self) -> None: ...


class SteppedEngine:
    """What both of torch's ways have alike: the optimiser's step, and the end."""

    network: Any
    runner: Any
    optimiser: Any
    initial_rates: list[float]
    rank: int

    def save(self, folder: Path) -> None:
        """A file a rank: FSDP2 holds another share on each."""
        torch.save([self.network.state_dict(), self.optimiser.state_dict()], folder / f"{self.rank}.pt")

    def load(self, folder: Path) -> None:
        network, optimiser = torch.load(folder / f"{self.rank}.pt", weights_only=False)
        self.network.load_state_dict(network)
        self.optimiser.load_state_dict(optimiser)

    def update(self, factor: float) -> None:
        set_rates(self.optimiser.param_groups, self.initial_rates, factor)
        self.optimiser.step()

    def close(self) -> None:
        del self.runner


class DdpEngine(SteppedEngine):
    """DistributedDataParallel, which means over ranks: losses here are parts of one sum, and are scaled."""

    def __init__(self, fit: Fit, world: World) -> None:
        self.fit, self.scale, self.rank = fit, float(world.size), world.rank
        self.network = network = training_network(fit, world.device).to(memory_format=torch.channels_last)
        groups = fit.parameter_groups(network)
        self.initial_rates = [group["lr"] for group in groups]
        freeze_others(network, groups)
        self.optimiser = make_optimiser(fit.section, groups)
        self.runner = DistributedDataParallel(network, gradient_as_bucket_view=True)

    def accumulate(self, pieces: Sequence[Batch], pooled: Tensor) -> Iterator[dict[str, Tensor]]:
        self.optimiser.zero_grad(set_to_none=True)
        for number, piece in enumerate(pieces, 1):
            with nullcontext() if number == len(pieces) else self.runner.no_sync():
                parts = self.fit.losses(self.runner, piece, pooled)
                (parts["total"] * self.scale).backward()
            yield {name: part.detach() for name, part in parts.items()}


class FsdpEngine(SteppedEngine):
    """FSDP2: weights, gradients and moments are cut over the ranks by layer, and gathered where they are used."""

    def __init__(self, fit: Fit, world: World) -> None:
        self.fit, self.scale, self.rank = fit, float(world.size), world.rank
        network: Any = training_network(fit, world.device)  # contiguous: it takes no other weights
        self.network = network
        freeze_others(network, fit.parameter_groups(network))
        mesh = init_device_mesh(world.device.type, (world.size,))
        for layer in layers(network.backbone):
            fully_shard(layer, mesh=mesh)
        self.runner: FSDPModule = fully_shard(network, mesh=mesh)
        groups = fit.parameter_groups(network)
        self.initial_rates = [group["lr"] for group in groups]
        self.optimiser = make_optimiser(fit.section, groups)

    def accumulate(self, pieces: Sequence[Batch], pooled: Tensor) -> Iterator[dict[str, Tensor]]:
        self.optimiser.zero_grad(set_to_none=True)
        for number, piece in enumerate(pieces, 1):
            self.runner.set_requires_gradient_sync(number == len(pieces))
            parts = self.fit.losses(self.runner, piece, pooled)  # type: ignore[arg-type]
            (parts["total"] * self.scale).backward()
            yield {name: part.detach() for name, part in parts.items()}


def layers(backbone: nn.Module) -> list[nn.Module]:
    """The layers of a backbone that have weights and are called as a whole."""
    features: Any = backbone.features
    named = features.values() if isinstance(features, nn.ModuleDict) else features
    return [layer for layer in named if any(True for _ in layer.parameters())]
