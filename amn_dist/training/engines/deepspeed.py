"""DeepSpeed: mixed precision, ZeRO, data parallelism; the only place that imports it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amn_dist.config import EngineSection
from amn_dist.interfaces import Fit
from amn_dist.models.precision import resolve_precision
from amn_dist.ops.devices import has_gpu
from amn_dist.records import Batch
from amn_dist.training.network import training_network
from amn_dist.training.optimiser import freeze_others, gradient_norm, make_optimiser, set_rates, spare
from amn_dist.training.snapshot import gather_moments, read_snapshot, split_moments, write_snapshot
from amn_dist.training.world import World, form_group

if not has_gpu():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed


class DeepSpeedEngine:
    """Engine around deepspeed.initialize. `pieces`: micro-batches a step on every rank."""

    def __init__(self, fit: Fit, section: EngineSection, world: World, *, pieces: int) -> None:
        form_group(world)
        _skip_compiling()
        os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
        self.fit = fit
        # Weights stay contiguous: DeepSpeed broadcasts and flattens them; channels_last inputs suffice the kernels.
        self.network = training_network(fit, world.device)
        groups = fit.parameter_groups(self.network)
        self.initial_rates = [group["lr"] for group in groups]
        freeze_others(self.network, groups)
        self.trained = [parameter for group in groups for parameter in group["params"]]
        if len(self.trained) == 1:
            # DeepSpeed copies a lone gradient onto itself; torch refuses unless its strides are those of a new one.
            self.trained[0].register_hook(lambda gradient: gradient.flatten().view(gradient.shape))
        self.zero, self.world = section.zero, world
        self.pieces = pieces
        # DeepSpeed means over ranks and micro-batches; losses here are parts of one global sum.
        self.scale = float(world.size * pieces)
        self.guards = world.device.type != "cpu"
        self.stepped = make_optimiser(fit.section, groups, fused=self.guards)
        self.runner, self.optimiser, _, _ = deepspeed.initialize(
            model=self.network,
            optimizer=self.stepped,
            config=_settings(fit, section, world, pieces),
            dist_init_required=False,
        )

    def accumulate(self, pieces: Sequence[Batch], pooled: Tensor) -> Iterator[dict[str, Tensor]]:
        assert len(pieces) == self.pieces
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            self.runner.set_gradient_accumulation_boundary(last)
            parts = self.fit.losses(self.runner, piece, pooled)
            self.runner.backward(parts["total"] * self.scale)
            if not last:
                self.runner.step()
            yield {name: part.detach() for name, part in parts.items()}

    def update(self, factor: float, spoiled: Tensor | None = None) -> None:
        spare(self.stepped, spoiled)
        set_rates(self.optimiser.param_groups, self.initial_rates, factor)
        if not self.zero:  # ZeRO computes it, and no rank has all gradients
            self.norm = gradient_norm(self.trained)
        self.runner.step()
        if self.zero:
            self.norm = torch.as_tensor(self.runner.get_global_grad_norm())

    def save(self, folder: Path) -> None:
        if self.zero:
            moments = gather_moments(self.optimiser, self.trained)
        else:
            moments = [self.optimiser.state.get(parameter, {}) for parameter in self.trained]
        if self.world.rank == 0:
            write_snapshot(folder, self.network, moments)

    def load(self, folder: Path) -> None:
        moments = read_snapshot(folder, self.network, self.trained, fused=self.guards)
        if self.zero:
            split_moments(self.optimiser, self.trained, moments)
            return
        for parameter, moment in zip(self.trained, moments, strict=True):
            self.optimiser.state[parameter] = moment

    def close(self) -> None:
        # ZeRO's hooks would keep the network and its optimiser in memory.
        self.runner.destroy()


def forget_groups() -> None:
    """Drop DeepSpeed's own references to process groups: their threads end when nobody has any."""
    deepspeed.utils.groups._release_process_group_references()


def _settings(fit: Fit, section: EngineSection, world: World, pieces: int) -> dict[str, Any]:
    share = -(-fit.section.batch // world.size)
    return {
        "train_micro_batch_size_per_gpu": -(-share // pieces),
        "gradient_accumulation_steps": pieces,
        "torch_autocast": {"enabled": resolve_precision(section.precision) == torch.bfloat16, "dtype": "bfloat16"},
        "zero_optimization": {"stage": section.zero},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Its default clips to norm 1, which no published run does.
        "gradient_clipping": 0.0,
        "steps_per_print": 2**31,
    }


def _skip_compiling() -> None:
    """Keep DeepSpeed from compiling a shared-memory op on first use, which serves inference alone."""
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
