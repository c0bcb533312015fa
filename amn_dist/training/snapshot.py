"""Weights and optimiser of a Fit as one file that any engine, ZeRO stage and number of processes reads."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor, distributed, nn

FILE = "snapshot.pt"
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError, BadZipFile)
"""What damaged files raise while they are read."""

Moments = dict[str, Any]
"""What an optimiser remembers of one parameter: tensors of its shape, and counters."""


def write_snapshot(folder: Path, network: nn.Module, moments: Sequence[Moments]) -> None:
    """Write folder/snapshot.pt. moments: in the order of the trained parameters."""
    torch.save({"network": network.state_dict(), "moments": list(moments)}, folder / FILE)


def read_snapshot(
    folder: Path, network: nn.Module, trained: Sequence[nn.Parameter], *, fused: bool = False
) -> list[Moments]:
    """Restore the network; returns the moments, fitted to the layout and device of the trained parameters.

    fused: of the optimiser, which then wants its counters on the device too, and else on the host.
    """
    snapshot = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    if len(snapshot["moments"]) != len(trained):
        raise ValueError(f"{len(snapshot['moments'])} trained parameters, expected {len(trained)}")
    network.load_state_dict(snapshot["network"])
    return [
        {name: _fitted(value, parameter, fused=fused) for name, value in of_parameter.items()}
        for of_parameter, parameter in zip(snapshot["moments"], trained, strict=True)
    ]


def _fitted(value: Any, parameter: nn.Parameter, *, fused: bool) -> Any:
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    if isinstance(value, Tensor) and fused:
        return value.to(parameter.device)
    return value


def gather_moments(zero: Any, trained: Sequence[nn.Parameter]) -> list[Moments]:
    """Put together what ZeRO 1 or 2 (DeepSpeed's optimiser) has split over the ranks; every rank calls it."""
    gathered: dict[int, Moments] = {}
    for group, part in enumerate(zero.single_partition_of_fp32_groups):
        whole = {name: _joined(value, part) for name, value in zero.optimizer.state[part].items()}
        for parameter, start in _starts(zero, group):
            gathered[id(parameter)] = {name: _cut(value, parameter, start) for name, value in whole.items()}
    return [gathered[id(parameter)] for parameter in trained]


def split_moments(zero: Any, trained: Sequence[nn.Parameter], moments: Sequence[Moments]) -> None:
    """Give this rank of ZeRO 1 or 2 its part of the moments, and its part of the weights that were just loaded."""
    zero.refresh_fp32_params()
    moments_of = {id(parameter): of_parameter for parameter, of_parameter in zip(trained, moments, strict=True)}
    for group, part in enumerate(zero.single_partition_of_fp32_groups):
        starts = _starts(zero, group)
        size, rank = part.numel(), distributed.get_rank()
        for name, first in moments_of[id(starts[0][0])].items():
            if not _spread(first, starts[0][0]):
                zero.optimizer.state[part][name] = first
                continue
            flat = torch.zeros(size * distributed.get_world_size(), dtype=first.dtype, device=part.device)
            for parameter, start in starts:
                flat[start : start + parameter.numel()] = moments_of[id(parameter)][name].contiguous().view(-1)
            zero.optimizer.state[part][name] = flat[rank * size : (rank + 1) * size].clone()


def _starts(zero: Any, group: int) -> list[tuple[nn.Parameter, int]]:
    """The parameters of a group and where each begins in ZeRO's flat buffer."""
    return list(zip(zero.round_robin_bit16_groups[group], zero.round_robin_bit16_offsets[group], strict=True))


def _joined(value: Any, part: Tensor) -> Any:
    if not _spread(value, part):
        return value
    parts = [torch.empty_like(value) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, value.contiguous())
    return torch.cat(parts)


def _cut(value: Any, parameter: nn.Parameter, start: int) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    return value[start : start + parameter.numel()].view(parameter.shape).clone()


def _spread(value: Any, like: Tensor) -> bool:
    """Whether a value has an entry for every weight; the others are counters."""
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape == like.shape
