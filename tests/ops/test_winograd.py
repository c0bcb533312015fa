"""Winograd's products against the direct sum in float64."""

import pytest
import torch
from torch.nn.functional import conv2d

from amn_dist.ops import winograd
from amn_dist.ops.winograd import winograd_conv, winograd_weights
from benchmarks.harness import torch_threads


def drawn(images: int, channels_in: int, channels_out: int, size: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, channels_in, *size, generator=generator)
    weight = torch.randn(channels_out, channels_in, 3, 3, generator=generator) / channels_in**0.5
    return x, weight, torch.randn(channels_out, generator=generator)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 3), (9, 14)])
@pytest.mark.parametrize("relu", [False, True])
def test_agrees_with_the_direct_sum(size: tuple[int, int], relu: bool) -> None:
    x, weight, bias = drawn(2, 32, 48, size)
    expected = conv2d(x.double(), weight.double(), bias.double(), padding=1)
    expected = expected.relu() if relu else expected
    outputs = winograd_conv(x, winograd_weights(weight), bias, relu=relu)
    assert outputs.dtype == torch.float32 and outputs.is_contiguous(memory_format=torch.channels_last)
    assert (outputs - expected).abs().max() < 2e-5 * expected.abs().max()


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = drawn(3, 16, 16, (21, 30))
    weights = winograd_weights(weight)
    whole = winograd_conv(x, weights, bias)
    monkeypatch.setattr(winograd, "FEWEST_TILES", 7)
    monkeypatch.setattr(winograd, "CACHED", 1)
    torch.testing.assert_close(winograd_conv(x, weights, bias), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dilation", [2, 3])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (9, 14), (17, 6)])
def test_dilated_kernels_agree_with_the_direct_sum(size: tuple[int, int], dilation: int) -> None:
    x, weight, bias = drawn(3, 32, 48, size)
    expected = conv2d(x.double(), weight.double(), bias.double(), padding=dilation, dilation=dilation)
    outputs = winograd_conv(x, winograd_weights(weight), bias, dilation=dilation)
    assert (outputs - expected).abs().max() < 2e-5 * expected.abs().max()


def test_one_thread_and_several_agree() -> None:
    x, weight, bias = drawn(3, 32, 48, (21, 30))
    outputs = []
    for threads in (1, 3):
        with torch_threads(threads):
            outputs.append(winograd_conv(x, winograd_weights(weight), bias))
    single, several = outputs
    torch.testing.assert_close(single, several, rtol=0, atol=1e-5 * float(single.abs().max()))
