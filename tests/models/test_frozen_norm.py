"""Frozen norms folded into the weights of a training step: the outputs and gradients of the plain layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from amn_dist.models.backbones.blueprint import FixedBatchNorm
from amn_dist.models.backbones.caffe_resnet import CaffeBottleneck
from amn_dist.models.backbones.frozen_norm import ConvNorm, folded_norms


def blocks(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Two residual blocks, the first with a projection and a stride, with norms that do something."""
    torch.manual_seed(0)
    network = nn.Sequential(
        CaffeBottleneck(6, 4, stride=2, project=True), CaffeBottleneck(16, 4, dilation=2, project=False)
    )
    for norm in (module for module in network.modules() if isinstance(module, FixedBatchNorm)):
        for value, low in ((norm.weight, 0.5), (norm.bias, -0.3), (norm.running_mean, -0.2), (norm.running_var, 0.5)):
            value.data.uniform_(low, low + 1)
    return network.to(dtype)


def stepped(network: nn.Module, x: Tensor, *, folded: torch.dtype | None = None, scales: int = 2) -> list[Tensor]:
    """Outputs at several scales, and gradients of input and weights of a sum that weighs them unevenly."""
    x = x.clone().requires_grad_()
    with folded_norms(network, folded):
        outputs = [network(x[..., number:]) for number in range(scales)]
    total = sum((out.double() * torch.linspace(-1, 2, out.numel()).view(out.shape)).sum() for out in outputs)
    assert isinstance(total, Tensor)
    total.backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.requires_grad]
    return [value.detach() for value in (*outputs, x.grad, *gradients) if value is not None]


def test_outputs_and_gradients_are_those_of_the_plain_layers() -> None:
    network, x = blocks(), torch.randn(2, 6, 11, 14, dtype=torch.float64)
    plain = stepped(copy.deepcopy(network), x)
    folded = stepped(network, x, folded=torch.float64)
    assert len(plain) == len(folded) == 2 + 1 + 7
    for ours, expected in zip(folded, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
    assert all(module.folded is None for module in network.modules() if isinstance(module, ConvNorm))


def test_bf16_rounds_no_worse_than_the_plain_layers_do() -> None:
    network, x = blocks(torch.float32), torch.randn(4, 6, 17, 22)
    exact = stepped(copy.deepcopy(network).double(), x.double())
    folded = stepped(copy.deepcopy(network), x, folded=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = stepped(copy.deepcopy(network), x)
    assert folded[0].dtype == torch.bfloat16 and {value.dtype for value in folded[2:]} == {torch.float32}

    def errors(values: list[Tensor]) -> Tensor:
        return torch.stack([(value.double() - e).norm() / e.norm() for value, e in zip(values, exact, strict=True)])

    assert (errors(folded) < 0.03).all()
    assert errors(folded).mean() < 1.2 * errors(plain).mean()


def test_weights_that_are_not_trained_get_no_gradient() -> None:
    network = blocks()
    for parameter in network[0].parameters():
        parameter.requires_grad_(False)
    with folded_norms(network, torch.float64):
        network(torch.randn(1, 6, 8, 8, dtype=torch.float64)).sum().backward()
    assert all(parameter.grad is None for parameter in network[0].parameters())
    assert network[1].reduce.conv.weight.grad is not None  # type: ignore[union-attr]


def test_layers_are_as_before_after_an_error() -> None:
    network = blocks()
    with pytest.raises(RuntimeError), folded_norms(network, torch.float64):
        network(torch.zeros(1, 5, 8, 8, dtype=torch.float64))
    assert all(module.folded is None for module in network.modules() if isinstance(module, ConvNorm))


@pytest.mark.gpu
def test_a_gpu_folds_to_the_same_step() -> None:
    network, x = blocks(torch.float32), torch.randn(4, 6, 17, 22)
    exact = stepped(copy.deepcopy(network).double(), x.double())
    ours = copy.deepcopy(network).cuda().to(memory_format=torch.channels_last)
    folded = stepped(ours, x.cuda().to(memory_format=torch.channels_last), folded=torch.bfloat16)
    for value, expected in zip(folded, exact, strict=True):
        assert (value.cpu().double() - expected).norm() < 0.03 * expected.norm()
