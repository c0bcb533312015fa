"""Trained networks made ready to infer: where they lie, what they compute in, which layers are rewritten."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar, overload

import torch
from torch import Tensor, nn

from amn_dist.models.aspp import Aspp
from amn_dist.models.backbones.backbone import Backbone
from amn_dist.models.fused import Forms, cpu_forms, fuse
from amn_dist.models.fused_device import device_forms
from amn_dist.models.half_head import HalfAspp
from amn_dist.models.weights import load_network
from amn_dist.ops.allocator import keep_freed_memory
from amn_dist.ops.transfer import inference_device

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import Infer

Network = TypeVar("Network", bound=nn.Module)

ACCELERATOR_PIXELS = 8 * 2**20
"""Default of infer.batch_pixels where an accelerator computes."""


class FloatTaps(Sequence[Tensor]):
    """Taps of a backbone in float32, each cast when it is read: most networks read the last alone."""

    def __init__(self, taps: Sequence[Tensor]) -> None:
        self._taps = taps

    def __len__(self) -> int:
        return len(self._taps)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...

    @overload
    def __getitem__(self, place: slice) -> FloatTaps: ...

    def __getitem__(self, place: int | slice) -> Tensor | FloatTaps:
        return FloatTaps(self._taps[place]) if isinstance(place, slice) else self._taps[place].float()


class CastBackbone(nn.Module):
    """A backbone whose weights lie in half precision; its taps are handed on in float32, to which heads keep."""

    def __init__(self, backbone: Backbone, precision: torch.dtype, forms: Forms) -> None:
        super().__init__()
        fuse(backbone, forms)
        self.inner, self.precision = backbone.to(precision), precision
        self.strides, self.colour = backbone.strides, backbone.colour

    def forward(self, x: Tensor) -> FloatTaps:
        return FloatTaps(self.inner(x.to(self.precision)))


def load_for_inference(
    network: Network, path: str | os.PathLike[str], *, precision: torch.dtype = torch.float32
) -> Network:
    """Fill a network from a file of save_network, ready to infer on the accelerator if there is one."""
    return prepare(load_network(network, path), inference_device(), precision=precision)


def prepare(network: Network, device: torch.device | str, *, precision: torch.dtype = torch.float32) -> Network:
    """Make a trained network with a `backbone` ready to infer, in place; it can no longer be trained or saved.

    precision: bf16 computes the backbone in it, and on a device a dilated head in float16. Layers are fused in the form
    of the device (models/fused.py, models/fused_device.py).
    """
    network, on_cpu = network.eval().requires_grad_(False), torch.device(device).type == "cpu"
    forms = cpu_forms(precision) if on_cpu and _onednn_computes(precision) else device_forms(precision)
    if precision == torch.float32:
        fuse(network, forms)
    else:
        network.backbone = CastBackbone(network.backbone, precision, forms)  # type: ignore[arg-type]
        if not on_cpu and isinstance(head := getattr(network, "aspp", None), Aspp):
            network.aspp = HalfAspp(head)
    if on_cpu:
        keep_freed_memory()
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _onednn_computes(precision: torch.dtype) -> bool:
    """Whether this CPU's convolutions of a type are oneDNN's; those in bf16 want AVX512 at least."""
    if not torch.backends.mkldnn.is_available():
        return False
    return precision == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters lie."""
    return next(network.parameters()).device


def batch_pixels(section: Infer, network: nn.Module) -> int:
    """Pixels a forward pass of this network may take: as configured, or what suits its device."""
    return section.batch_pixels or (1 if device_of(network).type == "cpu" else ACCELERATOR_PIXELS)
