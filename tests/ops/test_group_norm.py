"""Group norm against the same in float64: maps that are mostly padding, far from zero, tiny; values and gradients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.ops.group_norm import group_norm
from benchmarks.harness import torch_threads

EPSILON = 1e-5


def padded(x: Tensor) -> Tensor:
    """Constant but for a corner that varies little."""
    values = torch.full_like(x, 5.0)
    corner = slice(None, -(-x.shape[2] // 6)), slice(None, -(-x.shape[3] // 4))
    values[:, :, *corner] += 0.05 * x[:, :, *corner]
    return values


KINDS = {
    "normal": lambda x: x,
    "mostly padding": padded,
    "a large mean": lambda x: 100 + 0.1 * x,
    "a few cells": lambda x: 30 + 0.5 * (x > 3),
    "constant": lambda x: torch.full_like(x, 7.0),
}
SHAPES = [(2, 32, 4, 128, 131), (1, 160, 8, 33, 20), (3, 24, 8, 1, 1), (2, 6, 3, 5, 7), (1, 32, 8, 300, 301)]


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch_threads(request.param):
        yield


def layer(shape: tuple[int, ...], kind: str) -> tuple[Tensor, int, Tensor, Tensor, Tensor]:
    """Maps in channels_last, groups, weight, bias, and a gradient of the output."""
    torch.manual_seed(0)
    count, channels, groups, *size = shape
    x = KINDS[kind](torch.randn(count, channels, *size)).contiguous(memory_format=torch.channels_last)
    return x, groups, torch.randn(channels), torch.randn(channels), torch.randn_like(x)


def learned(x: Tensor, groups: int, weight: Tensor, bias: Tensor, above: Tensor, *, exact: bool) -> list[Tensor]:
    """Output, and gradients of maps, weight and bias."""
    kind = torch.float64 if exact else torch.float32
    inputs = [value.to(kind).clone().requires_grad_() for value in (x, weight, bias)]
    maps = inputs[0].contiguous() if exact else inputs[0]
    norm = functional.group_norm if exact else group_norm
    out = norm(maps, groups, *inputs[1:], EPSILON)
    out.backward(above.to(kind))
    return [out.detach(), *(value.grad for value in inputs if value.grad is not None)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_keeps_its_digits(shape: tuple[int, ...], kind: str, threads: None) -> None:
    case = layer(shape, kind)
    for result, expected in zip(learned(*case, exact=False), learned(*case, exact=True), strict=True):
        error = (result.double() - expected).abs().max() / expected.abs().max().clamp(min=1)
        assert error < 1e-6, float(error)


def test_threads_change_nothing_that_matters() -> None:
    case, outputs = layer(SHAPES[0], "normal"), []
    for number in (1, 2):
        with torch_threads(number):
            outputs.append(learned(*case, exact=False))
    for first, second in zip(*outputs, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-6 * float(first.abs().max()))


def test_layout_and_type_of_the_output_are_those_of_the_input() -> None:
    x, groups, weight, bias, _ = layer(SHAPES[1], "normal")
    with torch.inference_mode():
        out = group_norm(x, groups, weight, bias, EPSILON)
        plain = group_norm(x.contiguous(), groups, weight, bias, EPSILON)
    assert out.is_contiguous(memory_format=torch.channels_last) and plain.is_contiguous()
    torch.testing.assert_close(out, plain, rtol=1e-5, atol=1e-5)


def test_other_types_and_autocast_take_torchs_own_path() -> None:
    x, groups, weight, bias, _ = layer(SHAPES[1], "normal")
    half = group_norm(x.bfloat16(), groups, weight.bfloat16(), bias.bfloat16(), EPSILON)
    assert torch.equal(half, functional.group_norm(x.bfloat16(), groups, weight.bfloat16(), bias.bfloat16(), EPSILON))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(
            group_norm(x, groups, weight, bias, EPSILON), functional.group_norm(x, groups, weight, bias, EPSILON)
        )
