"""Operations, bytes and launches of work that runs on no device: written down on their way, one entry a kernel.

Bytes are those of every tensor an operation is given and of every one it makes, as if no cache held any. Operations are
torch's formulas, two a multiply-add. Nothing is timed, and nothing here needs a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop, flop_registry, sdpa_flop

KERNELLESS = ("_unsafe_view", "_reshape_alias", "reshape", "detach", "alias", "empty", "new_empty", "empty_like")
"""Operations without a kernel that do not call themselves views."""
FUSED = ("cudnn_convolution_relu", "cudnn_convolution_add_relu")
ATTENTION = "scaled_dot_product_attention"
DEVICES = ("cuda", "meta")


class Patch(Protocol):
    """Sets an attribute until the patches are undone."""

    def setattr(self, target: Any, name: str, value: Any) -> None: ...


class Patches(contextlib.ExitStack):
    """Attributes that are set inside, and as before behind."""

    def setattr(self, target: Any, name: str, value: Any) -> None:
        self.enter_context(mock.patch.object(target, name, value))


@dataclass(frozen=True)
class Kernel:
    """One launch. flops: in `kind`, the type that it computes in. moved: bytes read and written."""

    flops: float
    moved: float
    kind: torch.dtype


@dataclass
class Counts:
    """Launches in their order."""

    kernels: list[Kernel] = field(default_factory=list)

    @property
    def flops(self) -> float:
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def moved(self) -> float:
        return sum(kernel.moved for kernel in self.kernels)

    @property
    def launches(self) -> int:
        return len(self.kernels)


COUNTING: list[Counts] = []
"""Where launches of our own kernels are counted; the innermost last."""


def count_kernel(arguments: tuple[Any, ...]) -> None:
    """Count a kernel of our own, which reads or writes every tensor it is given once."""
    for counts in COUNTING[-1:]:
        given = list(tensors(arguments))
        counts.kernels.append(Kernel(0.0, sum(map(size_of, given)), torch.float32))


@contextlib.contextmanager
def counting() -> Iterator[Counts]:
    """Count what is asked of a device that exists only by name; inside `recording` or `fake_cuda`."""
    counts = Counts()
    COUNTING.append(counts)
    try:
        with Counting(counts):
            yield counts
    finally:
        COUNTING.pop()


class Counting(TorchDispatchMode):
    """Counts every operation that a device would run."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.rpartition("::")[2]
        if func.namespace == "prim":  # asks a tensor what it is
            return func(*args, **kwargs)
        if name in FUSED:
            return self._fused(name, args)
        if name == ATTENTION and _on_device(list(tensors(args)), []):
            return self._attended(*args[:3])
        if self._consists_of_others(func, name):
            # In inference mode operations arrive whole.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        made = list(tensors(result))
        if not func.is_view and name not in KERNELLESS and _on_device(list(tensors((args, kwargs))), made):
            formula = flop_registry.get(func._overloadpacket)
            flops = float(formula(*args, **kwargs, out_val=result)) if formula else 0.0
            self._note(flops, list(tensors((args, kwargs))), made)
        return result

    def _consists_of_others(self, func: Any, name: str) -> bool:
        """Whether it has no kernel, or formula, of its own. Resizing has one, though torch can write it out."""
        return (
            func.namespace == "aten"
            and func._overloadpacket not in flop_registry
            and not name.startswith("upsample_")
            and func._can_decompose()
        )

    def _fused(self, name: str, args: Any) -> Tensor:
        """A convolution whose sum and ReLU cost no pass of their own."""
        result, (x, weight) = fused_convolution(name, args), args[:2]
        flops = float(conv_flop(x, weight, None, None, None, None, False, out_val=result))
        self._note(flops, [x, weight, *([args[2]] if name == FUSED[1] else [])], [result])
        return result

    def _attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention in one kernel, whose weights never reach the memory."""
        result = q.new_empty((*q.shape[:-1], v.shape[-1]))
        self._note(float(sdpa_flop(q, k, v, out_val=result)), [q, k, v], [result])
        return result

    def _note(self, flops: float, given: list[Tensor], made: list[Tensor]) -> None:
        kinds = [tensor.dtype for tensor in given if tensor.is_floating_point()]
        moved = sum(map(size_of, given)) + sum(map(size_of, made))
        self.counts.kernels.append(Kernel(flops, moved, kinds[0] if kinds else torch.float32))


def fused_convolution(name: str, args: Any) -> Tensor:
    """What a fused convolution of cuDNN gives, as far as shapes and types go."""
    x, weight = args[:2]
    bias, stride, padding, dilation, groups = args[4:] if name == FUSED[1] else args[2:]
    steps = (stride, padding, dilation, False, [0] * len(stride), groups)
    result: Tensor = torch.ops.aten.convolution(x, weight, bias, *steps)
    return result


def _on_device(given: list[Tensor], made: list[Tensor]) -> bool:
    """Whether a kernel runs; a copy between host and device is none."""
    kinds = {tensor.device.type for tensor in (*given, *made) if tensor.dim()}
    return bool(kinds) and kinds <= set(DEVICES)


def size_of(tensor: Tensor) -> int:
    """Bytes of the values a tensor holds; those it repeats are one."""
    held = prod(side for side, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return held * tensor.element_size() if tensor.numel() else 0


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists and tables."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
