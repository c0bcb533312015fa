"""Interpreted kernels may touch what their launch was given, and nothing else."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where the kernels of these tests run; on a CPU they are interpreted."""


@pytest.fixture
def device() -> str:
    pytest.importorskip("triton", reason="the device's kernels are written in triton")
    return DEVICE


class Addresses:
    """Buffers of the launch that runs, and how many addresses were looked at."""

    def __init__(self) -> None:
        self.buffers: list[tuple[int, int]] = []
        self.seen = 0

    def open(self, arguments: tuple[Any, ...]) -> None:
        self.buffers = []
        for tensor in arguments:
            if isinstance(tensor, torch.Tensor) and tensor.numel():
                last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
                begin = tensor.data_ptr()
                self.buffers.append((begin, begin + (last + 1) * tensor.element_size()))

    def check(self, pointers: Any, mask: Any) -> None:
        chosen = np.broadcast_to(mask.data.astype(bool), pointers.data.shape)
        addresses = pointers.data[chosen].astype(np.uint64)
        width = max(pointers.get_element_ty().primitive_bitwidth // 8, 1)
        inside = np.zeros(addresses.shape, bool)
        for begin, end in self.buffers:
            inside |= (addresses >= begin) & (addresses + np.uint64(width) <= end)
        self.seen += addresses.size
        assert inside.all(), f"{(~inside).sum()} of {inside.size} addresses lie outside what the launch was given"


@pytest.fixture
def addresses(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Addresses]:
    """Every address of every load and store is checked, and memory begins as no one wants it."""
    if device != "cpu":
        pytest.skip("compiled kernels are not watched")
    from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

    watched = Addresses()

    def checking(touch: Callable[..., Any], mask_at: int) -> Callable[..., Any]:
        def checked(self: Any, pointers: Any, *arguments: Any) -> Any:
            watched.check(pointers, arguments[mask_at])
            return touch(self, pointers, *arguments)

        return checked

    run = GridExecutor.__call__

    def opened(self: Any, *arguments: Any, **constants: Any) -> Any:
        watched.open(arguments)
        return run(self, *arguments, **constants)

    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", checking(InterpreterBuilder.create_masked_load, 0))
    monkeypatch.setattr(InterpreterBuilder, "create_masked_store", checking(InterpreterBuilder.create_masked_store, 1))
    monkeypatch.setattr(GridExecutor, "__call__", opened)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield watched
    torch.use_deterministic_algorithms(before)
