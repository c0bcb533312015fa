"""Values to a device and back, many at once: the host neither waits for a copy nor starts one for every small array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amn_dist.ops.devices import compute_device


def inference_device() -> torch.device:
    """The accelerator when there is one, else the CPU."""
    return torch.device(compute_device())


def to_device(values: np.ndarray, device: torch.device | str) -> Tensor:
    """The values on a device; on the CPU they share the memory. A GPU is sent them from pinned memory, unwaited for."""
    here = torch.from_numpy(np.ascontiguousarray(values))
    if torch.device(device).type == "cpu":
        return here
    return here.pin_memory().to(device, non_blocking=True)


def all_to_device(values: Sequence[np.ndarray], device: torch.device | str) -> list[Tensor]:
    """Arrays of one type and any shapes on a device, in one copy."""
    if torch.device(device).type == "cpu":
        return [torch.from_numpy(np.ascontiguousarray(one)) for one in values]
    row = to_device(np.concatenate([one.reshape(-1) for one in values]), device)
    return [part.view(one.shape) for part, one in zip(row.split([one.size for one in values]), values, strict=True)]


@dataclass(frozen=True)
class Landing:
    """Tensors on their way to the host. ready: reached when they are there; None when they were there all along."""

    tensors: list[Tensor]
    ready: Any = None

    def arrays(self) -> list[np.ndarray]:
        """The values, waited for."""
        if self.ready is not None:
            self.ready.synchronize()
        return [tensor.numpy() for tensor in self.tensors]

    def then(self, take: Callable[[list[np.ndarray]], None]) -> Callable[[], None] | None:
        """Hand the values over at once if they are there; else return what waits for them and does so."""
        if self.ready is not None:
            return lambda: take(self.arrays())
        take(self.arrays())
        return None


def to_host(tensors: Sequence[Tensor]) -> Landing:
    """Begin to bring tensors of one device to the host; the copies run while other work is given to the device."""
    if not tensors or not tensors[0].is_cuda:
        return Landing(list(tensors))
    landed = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in tensors]
    for there, here in zip(tensors, landed, strict=True):
        here.copy_(there, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record(torch.cuda.current_stream(tensors[0].device))
    return Landing(landed, ready)


def placed(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """The values on a device, which tensors there have not left."""
    return values if isinstance(values, Tensor) else to_device(values, device)
