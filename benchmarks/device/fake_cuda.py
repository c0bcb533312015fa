"""Tensors that claim to lie on a GPU, on any machine: they have shapes and a device, and no values.

Code that runs on them shows what it would have a device do: copies between it and the host, and where the host waits.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from benchmarks.device.counting import Patches, count_kernel, tensors
from benchmarks.device.source_line import here

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim")
"""Operations whose result the host must know."""


@dataclass
class Seen:
    """What a piece of code did, by line of the package. mixed: operations over tensors of both devices."""

    blocking: Counter[str] = field(default_factory=Counter)
    unwaited: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    landings: Counter[str] = field(default_factory=Counter)
    """Waits for copies that were begun before."""
    mixed: Counter[str] = field(default_factory=Counter)
    operations: int = 0

    def forget(self) -> None:
        """Begin anew."""
        self.__init__()  # type: ignore[misc]


class Recorder(TorchDispatchMode):
    """Looks at every operation on its way."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.rpartition("::")[2]
        inputs = list(tensors((args, kwargs)))
        sparse = [one for one in inputs if one.layout is torch.sparse_csr]
        # Products of sparse matrices have no shapes without values in torch.
        result = inputs[1].new_empty(len(sparse[0]), inputs[1].shape[1]) if sparse else func(*args, **kwargs)
        devices = {one.device.type for one in inputs if one.dim() or one.is_cuda}
        if name in ("_to_copy", "to", "copy_"):
            self._copy(func, args, kwargs, result)
        elif devices == {"cpu", "cuda"}:
            self.seen.mixed[f"{name} {here()}"] += 1
        if name in WAITS and "cuda" in devices:
            self.seen.waits[f"{name} {here()}"] += 1
        self.seen.operations += "cuda" in devices and not func.is_view
        return result

    def _copy(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        source, target = (args[1], args[0]) if func._schema.name == "aten::copy_" else (args[0], result)
        if source.device.type == target.device.type:
            return
        # In inference mode operations arrive whole: the schema says which argument is which.
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        unwaited = given.get("non_blocking", False)
        kind = "to the device" if target.is_cuda else "to the host"
        (self.seen.unwaited if unwaited else self.seen.blocking)[f"{kind} {here()}"] += 1


@contextlib.contextmanager
def fake_cuda() -> Iterator[Seen]:
    """Run code on tensors without values."""
    seen = Seen()
    with Patches() as patch:
        for name in ("__float__", "__int__", "__bool__", "item", "tolist"):
            patch.setattr(Tensor, name, _waiting(getattr(Tensor, name), seen, name))
        patch.setattr(Tensor, "numpy", _numpy(Tensor.numpy))
        patch.setattr(Tensor, "pin_memory", lambda self: self)
        patch.setattr(torch, "empty", _unpinned(torch.empty))
        patch.setattr(torch, "unique", _unique(torch.unique, seen))
        patch.setattr(nn.Module, "_apply", _apply)
        patch.setattr(torch.cuda, "Event", lambda: _event(seen))
        patch.setattr(torch.cuda, "device_of", lambda tensor: contextlib.nullcontext())
        patch.setattr(torch.cuda, "current_stream", lambda device=None: None)
        patch.setattr(torch.cuda, "synchronize", lambda device=None: seen.waits.update([f"synchronize {here()}"]))
        for kind in (JITFunction, InterpretedFunction):
            patch.setattr(kind, "__getitem__", lambda kernel, grid: _launched)
        _forget()
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), Recorder(seen):
                yield seen
        finally:
            _forget()


def _forget() -> None:
    """Empty what functions of the package remember: tensors with and without values must not meet."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("amn_dist.ops.")]
    for value in [value for module in modules for value in vars(module).values()]:
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def _launched(*arguments: Any, **constants: Any) -> None:
    """A kernel that looks where its tensors lie instead of computing."""
    assert all(one.is_cuda for one in arguments if isinstance(one, Tensor)), f"a kernel reads the host's, {here()}"
    count_kernel(arguments)


def _event(seen: Seen) -> SimpleNamespace:
    return SimpleNamespace(
        record=lambda stream=None: None, synchronize=lambda: seen.landings.update([f"event {here()}"])
    )


def _waiting(real: Callable[..., Any], seen: Seen, name: str) -> Callable[..., Any]:
    def ask(self: Tensor, *args: Any) -> Any:
        if not isinstance(self, FakeTensor):
            return real(self, *args)
        if self.is_cuda:
            seen.waits[f"{name} {here()}"] += 1
        ones = np.ones(tuple(self.shape))
        return {"__float__": float, "__int__": int, "__bool__": bool}.get(name, lambda ones: ones.tolist())(ones)

    return ask


def _numpy(real: Callable[..., Any]) -> Callable[..., Any]:
    def numpy(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self, FakeTensor):
            return real(self, *args, **kwargs)
        assert not self.is_cuda, f"a tensor of the device is read as an array, {here()}"
        return np.zeros(tuple(self.shape), _kind(self.dtype))

    return numpy


def _apply(module: nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """As torch's: parameters and buffers converted. Torch's own cannot give a parameter values of another kind."""
    for child in module.children():
        child._apply(convert)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                module._parameters[name] = nn.Parameter(convert(parameter).detach(), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = convert(buffer)
    return module


@cache
def _kind(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(str(dtype).removeprefix("torch."))


def _unpinned(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *size, pin_memory=False, **options: real(*size, **options)


def _unique(real: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    """How many values differ is a matter of values: it is taken to be a fourth of them."""

    def unique(values: Tensor, **options: Any) -> Any:
        if not isinstance(values, FakeTensor):
            return real(values, **options)
        seen.waits[f"unique {here()}"] += 1
        return values.flatten()[: max(values.numel() // 4, 1)], torch.zeros_like(values)

    return unique
