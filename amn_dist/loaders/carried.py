"""Batches on their way to the device that trains: it reads them by itself, while it works on those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from amn_dist.ops.normalise import crop_input
from amn_dist.records import Batch

AHEAD = 2
"""Batches on their way at a time."""


def carried(source: Iterator[Batch], device: torch.device, colour: str) -> Iterator[Batch]:
    """The batches of a source, which is closed with this iterator; beside a GPU they lie there when they come.

    colour: what bytes are normalised to there (ops/normalise.py). On a CPU batches are as the source made them.
    """
    if device.type != "cuda":
        return source
    return _carried_by(_Carrier(device, colour), source)


def _carried_by(carry: Callable[[Batch], Callable[[], Batch]], source: Iterator[Batch]) -> Generator[Batch]:
    """Batches that a thread takes from the source and carries ahead of their use, in order.

    carry: begins to bring a batch there; returns what hands it over.
    """

    def fetch() -> Callable[[], Batch] | None:
        batch = next(source, None)
        return None if batch is None else carry(batch)

    with ThreadPoolExecutor(1, thread_name_prefix="carry") as pool:
        try:
            pending: deque[Future[Callable[[], Batch] | None]] = deque(pool.submit(fetch) for _ in range(AHEAD))
            while (hand_over := pending.popleft().result()) is not None:
                pending.append(pool.submit(fetch))
                yield hand_over()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            getattr(source, "close", lambda: None)()


class _Carrier:
    """Copies batches on a stream of its own; the stream that trains waits for them, the host does not."""

    def __init__(self, device: torch.device, colour: str) -> None:
        self.device, self.colour = device, colour
        self.stream = torch.cuda.Stream(device)

    def __call__(self, batch: Batch) -> Callable[[], Batch]:
        torch.cuda.set_device(self.device)  # of this thread, in which DALI's pipeline is built too
        with torch.cuda.stream(self.stream):
            there = normalised(pinned(batch).to(self.device), self.colour)
            arrived = self.stream.record_event()

        def hand_over() -> Batch:
            trains = torch.cuda.current_stream(self.device)
            trains.wait_event(arrived)
            for tensor in (there.image, there.tags, there.label):
                if tensor is not None:
                    tensor.record_stream(trains)  # its memory is not given away while it is read there
            return there

        return hand_over


def pinned(batch: Batch) -> Batch:
    """The batch with what lies on the host in memory that a device reads by itself, image in channels_last."""
    image = batch.image.contiguous(memory_format=torch.channels_last)
    label = None if batch.label is None else _pinned(batch.label)
    boxes = None if batch.boxes is None else _pinned(batch.boxes)
    return replace(batch, image=_pinned(image), tags=_pinned(batch.tags), label=label, boxes=boxes)


def normalised(batch: Batch, colour: str) -> Batch:
    """The batch with its image normalised, where it lies."""
    if batch.boxes is None:
        return batch
    return replace(batch, image=crop_input(batch.image, batch.boxes, colour), boxes=None)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor
