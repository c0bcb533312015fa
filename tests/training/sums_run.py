"""Gradients of two ranks summed in buckets, against one sum: `python sums_run.py FOLDER`, as one rank."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from amn_dist.training.gradient_sums import GradientSums
from amn_dist.training.world import membership


class Branches(nn.Module):
    """Layers that get their gradients in another order than they stand in, one twice; the last gets none."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, fourth, _ = self.layers
        return (third(first(x)) * fourth(second(third(x)))).sum()


def gradients(network: nn.Module) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in network.parameters()]


def step(network: nn.Module, inputs: Tensor, sums: GradientSums | None) -> None:
    """Two micro-batches, of which the last lets buckets leave."""
    network.zero_grad()
    for number, piece in enumerate(inputs.chunk(2)):
        if sums is not None and number == 1:
            sums.begin()
        network(piece).backward()
    if sums is not None:
        sums.finish()


def main(folder: Path) -> None:
    with membership() as world:
        torch.manual_seed(0)
        network = Branches()
        inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(world.rank))
        step(network, inputs, None)
        pairs = zip(network.parameters(), gradients(network), strict=True)
        expected = [torch.zeros_like(parameter) if own is None else own for parameter, own in pairs]
        for gradient in expected:
            distributed.all_reduce(gradient)
        found = {}
        for size in (1, 200, 2**20):
            sums = GradientSums(list(network.parameters()), bucket_bytes=size)
            for _ in range(2):
                step(network, inputs, sums)
                found[f"{size}"] = gradients(network)
            found[f"buckets of {size}"] = len(sums.buckets)
            sums.close()
        torch.save({"expected": expected, "found": found}, folder / f"sums-{world.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
