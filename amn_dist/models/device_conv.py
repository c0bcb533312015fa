"""Convolution, bias, sum and ReLU in one pass on a GPU, where cuDNN has such a form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Geometry = tuple[list[int], list[int], list[int], int]
"""Padding, stride, dilation and groups of a convolution."""


def tried(operation: Callable[[], Any]) -> Tensor | None:
    """What an operation makes; None where the device has no such operation for these shapes."""
    try:
        result: Tensor = operation()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return None
    return result


def fused_conv(x: Tensor, weight: Tensor, bias: Tensor, total: Tensor | None, geometry: Geometry) -> Tensor | None:
    """relu(convolution + bias [+ total]) in cuDNN's one pass; None where it has none."""
    padding, stride, dilation, groups = geometry
    steps = (stride, padding, dilation, groups)
    if total is None:
        return tried(lambda: torch.ops.aten.cudnn_convolution_relu(x, weight, bias, *steps))
    return tried(lambda: torch.ops.aten.cudnn_convolution_add_relu(x, weight, total, 1.0, bias, *steps))


def plain_conv(x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> Tensor:
    """Convolution and bias."""
    padding, stride, dilation, groups = geometry
    return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
