"""What a device would be asked to do, written down on a machine without one.

Work runs on torch's meta device: shapes and types are computed, autograd works, no value exists. Every operation that
would start a kernel is a launch; reading a value, or an operation whose shape depends on values, makes the host wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import optimizer as optimisers
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils as foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from amn_dist.training.world import World
from benchmarks.device.counting import FUSED, KERNELLESS, Patch, count_kernel, fused_convolution, tensors
from benchmarks.device.source_line import here

META = torch.device("meta")
READS = ("_local_scalar_dense", "nonzero", "masked_select")
"""Operations whose result the host waits for."""
LOWERED = ("conv2d", "linear", "matmul", "mm", "bmm", "addmm")
RAISED = ("group_norm", "log_softmax", "softmax", "log", "exp", "pow", "sum", "cross_entropy")
RAISED += ("binary_cross_entropy_with_logits",)
"""Functions that autocast runs in bf16, and in float32, on CUDA; of those used here."""


RECORDING: list[Asked] = []
"""Where launches of our own kernels are written down; the innermost last."""


class MetaWorld(World):
    """A process whose accelerator is the meta device."""

    @property
    def device(self) -> torch.device:
        return META


@dataclass
class Asked:
    """What was asked of the device, by line of the package: launches; blocking copies; reads the host waits for."""

    launches: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)


class Recorder(TorchDispatchMode):
    """Writes down what is asked while it is on."""

    shapes: ClassVar[dict[Any, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.asked = Asked()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[-1]
        seen = [tensor for tensor in tensors((args, kwargs)) if tensor.device == META]
        if seen and name.startswith(READS):
            self.asked.waits[f"{name} {here()}"] += 1
            return 1 if name == READS[0] else args[0].new_empty(1, dtype=torch.int64)
        if seen and name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.asked.waits[f"boolean index {here()}"] += 1
            return args[0].new_empty(args[0].numel())
        if name == "_to_copy" and seen and str(kwargs.get("device")) == "cpu":
            self.asked.waits[f"to the host {here()}"] += 1
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if name.startswith("_fused_"):  # has no kernel for shapes alone
            self.asked.launches[f"{name} {here()}"] += 1
            return None
        if name in FUSED:
            result = fused_convolution(name, args)
        else:
            result = self._shaped(func, args, kwargs) if seen else func(*args, **kwargs)
        self._note(func, name, args, kwargs, result)
        return result

    def _shaped(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of an operation; shapes of equal inputs are remembered, since torch finds them slowly."""
        if func.is_view or func._schema.is_mutable:
            return func(*args, **kwargs)
        key = (func, _form((args, kwargs)))
        if key not in self.shapes:
            result = func(*args, **kwargs)
            alone = isinstance(result, Tensor)
            forms = [None if tensor is None else _form(tensor) for tensor in ([result] if alone else result)]
            self.shapes[key] = (alone, forms) if all(form is None or form[-1] == META for form in forms) else None
            return result
        if (remembered := self.shapes[key]) is None:
            return func(*args, **kwargs)
        alone, forms = remembered
        made = [None if form is None else torch.empty_strided(*form[:2], dtype=form[2], device=META) for form in forms]
        return made[0] if alone else tuple(made)

    def _note(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> None:
        if name in ("_to_copy", "copy_"):
            target, source = (args[0], args[1]) if name == "copy_" else (result, args[0])
            if target.device == META and source.device != META:
                free = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
                if not free:
                    self.asked.copies[here()] += 1
                return
        on_device = any(tensor.device == META for tensor in tensors((args, kwargs, result)))
        if on_device and not func.is_view and name not in KERNELLESS:
            self.asked.launches[f"{name} {here()}"] += 1


class _Lowered(TorchFunctionMode):
    """Autocast to bf16 as CUDA does it, which the meta device lacks; weights are cast once."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        change = self._low if name in LOWERED else _high if name in RAISED else (lambda value: value)
        kwargs = {key: change(value) for key, value in (kwargs or {}).items()}
        return func(*(change(value) for value in args), **kwargs)

    def _low(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not (value.is_leaf and value.requires_grad):
            return value.to(torch.bfloat16)
        if id(value) not in self.weights:
            self.weights[id(value)] = value.to(torch.bfloat16)
        return self.weights[id(value)]


def _high(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


class MetaAutocast:
    """torch.autocast on the meta device. active: how many are entered."""

    active: ClassVar[int] = 0

    def __init__(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True) -> None:
        self.mode = _Lowered() if enabled else None

    def __enter__(self) -> None:
        if self.mode is not None:
            MetaAutocast.active += 1
            self.mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self.mode is not None:
            MetaAutocast.active -= 1
            self.mode.__exit__(*error)


class MetaGenerator(torch.Generator):
    """A generator on the meta device, where nothing is drawn."""

    def __new__(cls, device: torch.device | None = None) -> MetaGenerator:
        return super().__new__(cls)


@contextmanager
def recording() -> Iterator[Asked]:
    """Writes down what is asked of the device inside."""
    with Recorder() as recorder:
        RECORDING.append(recorder.asked)
        try:
            yield recorder.asked
        finally:
            RECORDING.pop()


def pretend_device(patch: Patch) -> None:
    """Let torch do on the meta device what it does on CUDA: autocast, fused optimisers, lists in one kernel, generators
    of its own, values that can be read (each is 1)."""
    patch.setattr(torch, "autocast", MetaAutocast)
    patch.setattr(torch, "is_autocast_enabled", lambda kind=None: MetaAutocast.active > 0)
    patch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    for name in ("_get_fused_kernels_supported_devices", "_get_foreach_kernels_supported_devices"):
        for module in (optimisers, foreach_utils):
            if hasattr(module, name):
                patch.setattr(module, name, lambda: ["cuda", "cpu", "meta"])
    patch.setattr(torch, "Generator", MetaGenerator)
    for kind in (JITFunction, InterpretedFunction):
        patch.setattr(kind, "__getitem__", lambda kernel, grid: _launched)
    values = {"__float__": float, "__int__": int, "__bool__": bool, "item": float}
    for name, cast in values.items():
        patch.setattr(Tensor, name, _reading(getattr(Tensor, name), lambda tensor, cast=cast: cast(1)))
    patch.setattr(Tensor, "tolist", _reading(Tensor.tolist, lambda tensor: torch.ones(tensor.shape).tolist()))


def _launched(*arguments: Any, **constants: Any) -> None:
    """A kernel of our own that is counted instead of run."""
    assert all(value.device == META for value in arguments if isinstance(value, Tensor)), f"the host's, {here()}"
    count_kernel(arguments)
    for asked in RECORDING[-1:]:
        asked.launches[f"kernel {here()}"] += 1


def _reading(before: Any, value: Any) -> Any:
    def read(tensor: Tensor) -> Any:
        if tensor.device != META:
            return before(tensor)
        tensor.cpu()  # which is written down
        return value(tensor)

    return read


def _form(value: Any) -> Any:
    """What shapes follow from: size, strides, type and place of tensors, other values as they are."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.stride(), value.dtype, value.device)
    if isinstance(value, (list, tuple)):
        return tuple(map(_form, value))
    if isinstance(value, dict):
        return tuple((key, _form(item)) for key, item in value.items())
    return (type(value), value)
