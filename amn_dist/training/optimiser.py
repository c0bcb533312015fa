"""Optimisers and learning rates of the published runs (amn 4.1, 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import FitSection


POWER = 0.9
"""Exponent of the poly schedule."""


def make_optimiser(section: FitSection, groups: list[dict[str, Any]], *, fused: bool = False) -> torch.optim.Optimizer:
    """SGD or Adam with coupled L2; rate and decay come from each group. See FitSection.momentum_slip.

    fused: one kernel steps all parameters; it can be kept from it (`spare`).
    """
    if section.optimiser == "adam":
        return torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8, fused=fused)
    momentum = section.weight_decay if section.momentum_slip else section.momentum
    return torch.optim.SGD(groups, lr=section.lr, momentum=momentum, fused=fused)


def spare(optimiser: torch.optim.Optimizer, spoiled: torch.Tensor | None) -> None:
    """Make the next step of a fused optimiser one that changes nothing where spoiled, f32[] on its device, is 1.

    It is what mixed precision uses to leave out steps whose gradients overflow.
    """
    if spoiled is not None:
        optimiser.found_inf = spoiled  # type: ignore[attr-defined]


def rate_factor(section: FitSection, step: int, steps: int) -> float:
    """Factor on every group's initial rate at a global step counted from 0."""
    if section.schedule == "constant":
        return 1.0
    if section.schedule == "poly_epoch":
        return (1 - step * section.epochs // steps / section.epochs) ** POWER
    every = getattr(section, "schedule_every", 1)
    return (1 - (step // every * every) / steps) ** POWER


def set_rates(groups: list[dict[str, Any]], initial: list[float], factor: float) -> None:
    """Set the rate of every group to its initial one times a factor."""
    for group, rate in zip(groups, initial, strict=True):
        group["lr"] = rate * factor


def freeze_others(network: torch.nn.Module, groups: list[dict[str, Any]]) -> None:
    """Take the gradient from every parameter that is in no group."""
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    for parameter in network.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad_(False)


def gradient_norm(trained: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """Euclidean norm of all gradients, a scalar on their device."""
    return torch.nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
