"""The plain engine: torch and nothing else. What DeepSpeed is checked against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from amn_dist.interfaces import Fit
from amn_dist.models.precision import resolve_precision
from amn_dist.records import Batch
from amn_dist.training.gradient_sums import GradientSums
from amn_dist.training.network import training_network
from amn_dist.training.optimiser import freeze_others, gradient_norm, make_optimiser, set_rates, spare
from amn_dist.training.snapshot import read_snapshot, write_snapshot
from amn_dist.training.world import World

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import EngineSection


class Autocast(nn.Module):
    """Runs a network in mixed precision; what it returns goes into the losses outside."""

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.device_type = device.type
        self.dtype = dtype

    def forward(self, *inputs: Any, **options: Any) -> Any:
        with torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self.network(*inputs, **options)


class TorchEngine:
    """Engine whose ranks hold the same weights and sum their gradients."""

    def __init__(self, fit: Fit, section: EngineSection, world: World, *, fused: bool | None = None) -> None:
        """fused: step all parameters in one kernel, which guards; None: on a device."""
        self.fit = fit
        self.world = world
        self.network = training_network(fit, world.device).to(memory_format=torch.channels_last)
        groups = fit.parameter_groups(self.network)
        self.initial_rates = [group["lr"] for group in groups]
        freeze_others(self.network, groups)
        self.trained = [parameter for group in groups for parameter in group["params"]]
        self.guards = world.device.type != "cpu" if fused is None else fused
        self.optimiser = make_optimiser(fit.section, groups, fused=self.guards)
        self.sums = GradientSums(self.trained) if world.size > 1 else None
        self.runner = Autocast(self.network, world.device, resolve_precision(section.precision))
        self._share_weights()

    def accumulate(self, pieces: Sequence[Batch], pooled: Tensor) -> Iterator[dict[str, Tensor]]:
        self.optimiser.zero_grad(set_to_none=True)
        for number, piece in enumerate(pieces, 1):
            if self.sums is not None and number == len(pieces):
                self.sums.begin()
            parts = self.fit.losses(self.runner, piece, pooled)
            parts["total"].backward()
            yield {name: part.detach() for name, part in parts.items()}
        if self.sums is not None:
            self.sums.finish()

    def update(self, factor: float, spoiled: Tensor | None = None) -> None:
        set_rates(self.optimiser.param_groups, self.initial_rates, factor)
        self.norm = gradient_norm(self.trained)
        spare(self.optimiser, spoiled)
        self.optimiser.step()

    def save(self, folder: Path) -> None:
        if self.world.rank == 0:
            moments = [self.optimiser.state.get(parameter, {}) for parameter in self.trained]
            write_snapshot(folder, self.network, moments)

    def load(self, folder: Path) -> None:
        moments = read_snapshot(folder, self.network, self.trained, fused=self.guards)
        for parameter, moment in zip(self.trained, moments, strict=True):
            self.optimiser.state[parameter] = moment

    def close(self) -> None:
        if self.sums is not None:
            self.sums.close()

    def _share_weights(self) -> None:
        if self.world.size > 1:
            for tensor in self.network.state_dict().values():
                shared = tensor.contiguous()
                distributed.broadcast(shared, src=0)
                tensor.copy_(shared)
