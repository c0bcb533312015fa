"""Batches carried ahead of their use: in order, with the source's errors, and nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from amn_dist.errors import ShardError
from amn_dist.loaders.carried import AHEAD, _carried_by, carried
from amn_dist.records import Batch


def numbered(count: int, log: list[str], *, bad: int = -1) -> Iterator[Batch]:
    try:
        for number in range(count):
            if number == bad:
                raise ShardError(f"k{number}: the photo is damaged")
            log.append(f"made {number}")
            yield Batch((f"k{number}",), (number,), torch.full((1, 3, 2, 2), float(number)), torch.zeros(1, 2))
    finally:
        log.append("closed")


def hand_over_here(batch: Batch) -> Callable[[], Batch]:
    return lambda: batch


def carriers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("carry")]


def test_beside_a_cpu_the_source_itself_is_used() -> None:
    source = numbered(2, [])
    assert carried(source, torch.device("cpu"), "imagenet") is source


def test_batches_come_in_order_and_ahead_of_their_use() -> None:
    log: list[str] = []
    source = _carried_by(hand_over_here, numbered(9, log))
    assert next(source).ordinals == (0,)
    assert [batch.ordinals[0] for batch in source] == list(range(1, 9))
    assert log == [*(f"made {n}" for n in range(9)), "closed"] and not carriers()


def test_an_error_of_the_source_comes_where_its_batch_would() -> None:
    log: list[str] = []
    source = _carried_by(hand_over_here, numbered(9, log, bad=2))
    assert [next(source).ordinals[0] for _ in range(2)] == [0, 1]
    with pytest.raises(ShardError, match="k2: the photo is damaged"):
        next(source)
    assert log[-1] == "closed" and not carriers()


def test_closing_ends_the_thread_and_closes_the_source() -> None:
    log: list[str] = []
    source = _carried_by(hand_over_here, numbered(10**9, log))
    next(source)
    source.close()
    assert log[-1] == "closed" and len(log) <= 2 + AHEAD + 1 and not carriers()


@pytest.mark.gpu
def test_batches_lie_on_the_device_and_are_whole() -> None:
    device = torch.device("cuda", 0)
    for number, batch in enumerate(carried(numbered(9, []), device, "imagenet")):
        assert batch.image.device == device and batch.tags.device == device
        assert batch.image.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch.image.cpu(), torch.full((1, 3, 2, 2), float(number)))
