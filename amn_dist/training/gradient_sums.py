"""Gradients summed over the ranks, in buckets that leave while the backward pass still works on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed, nn

BUCKET_BYTES = 25 * 2**20
"""Of gradients in one collective: large enough for the network, small enough that the first ones leave early."""


@dataclass(slots=True)
class Bucket:
    """Neighbouring parameters whose gradients travel together. missing: how many have none yet in this step."""

    parameters: list[nn.Parameter]
    missing: int = 0


@dataclass(slots=True)
class Flight:
    """A bucket on its way. flat: its gradients one after the other, which become the sums."""

    bucket: Bucket
    flat: Tensor
    work: distributed.Work


@dataclass
class GradientSums:
    """Sums the gradients of these parameters over the ranks of the default process group.

    Buckets follow the parameters from the last to the first, as a backward pass does, and leave in that order on every
    rank, whatever order the gradients come in. A parameter without a gradient counts as one of zeros.
    """

    trained: Sequence[nn.Parameter]
    bucket_bytes: int = BUCKET_BYTES
    buckets: list[Bucket] = field(init=False)

    def __post_init__(self) -> None:
        self.buckets = [Bucket(parameters) for parameters in _buckets(self.trained, self.bucket_bytes)]
        self._of = {id(parameter): bucket for bucket in self.buckets for parameter in bucket.parameters}
        self._left: list[Bucket] = []
        self._flights: list[Flight] = []
        self._hooks = [parameter.register_post_accumulate_grad_hook(self._arrived) for parameter in self.trained]

    def begin(self) -> None:
        """Let buckets leave in the backward pass that follows, the last of a step."""
        for bucket in self.buckets:
            bucket.missing = len(bucket.parameters)
        self._left = list(self.buckets)

    def finish(self) -> None:
        """Put the sums in the place of the gradients; only a host that sums by itself (gloo) is waited for."""
        while self._left:
            self._leave()
        flights, self._flights = self._flights, []
        for flight in flights:
            flight.work.wait()
            sums = flight.flat.split([parameter.numel() for parameter in flight.bucket.parameters])
            for parameter, total in zip(flight.bucket.parameters, sums, strict=True):
                gradient = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = gradient.detach().copy_(total.view(gradient.shape))

    def close(self) -> None:
        """Let go of parameters and of what is on its way."""
        for hook in self._hooks:
            hook.remove()
        self._left, self._flights = [], []

    def _arrived(self, parameter: nn.Parameter) -> None:
        self._of[id(parameter)].missing -= 1
        while self._left and self._left[0].missing == 0:
            self._leave()

    def _leave(self) -> None:
        bucket = self._left.pop(0)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket.parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._flights.append(Flight(bucket, flat, distributed.all_reduce(flat, async_op=True)))


def _buckets(trained: Sequence[nn.Parameter], bucket_bytes: int) -> list[list[nn.Parameter]]:
    """The parameters from the last to the first, in lists that reach the size of a bucket; one type in each."""
    buckets: list[list[nn.Parameter]] = []
    size = bucket_bytes
    for parameter in reversed(trained):
        if size >= bucket_bytes or buckets[-1][-1].dtype != parameter.dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return buckets
