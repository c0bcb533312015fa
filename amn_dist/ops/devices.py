"""Whether this process computes on a GPU: the one place that asks torch."""

from __future__ import annotations

import torch


def compute_device() -> str:
    """Kind of device that networks run on here: `cuda` or `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_gpu() -> bool:
    """Whether there is a GPU that torch can use here."""
    return compute_device() == "cuda"
