"""Samples of one size together through a network, all of them out in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import prod

from amn_dist.records import Sample

WINDOW = 64
"""Samples held at most while a group is filled."""
WINDOW_BYTES = 64 * 2**20
"""Bytes of their photos held at most."""

Size = tuple[int, int]


def photo_size(sample: Sample) -> Size:
    """(H, W) of a sample's photo."""
    height, width = sample.image.shape[:2]
    return height, width


def in_groups(
    samples: Iterable[Sample],
    infer: Callable[[list[Sample]], None],
    *,
    batch_pixels: int,
    size: Callable[[Sample], Size] = photo_size,
) -> Iterator[Sample]:
    """Pass samples of equal size through `infer`, which fills them in; yield all in the order they came.

    A group takes as many samples as batch_pixels holds at their size, one at least. No further ahead is read than it
    takes to fill the group of the oldest sample.
    """
    source = iter(samples)
    held: deque[Sample] = deque()
    waiting: list[Sample] = []  # those of `held` that are not inferred yet

    def pull() -> bool:
        for sample in source:
            held.append(sample)
            waiting.append(sample)
            return True
        return False

    while held or pull():
        if waiting and waiting[0] is held[0]:
            wanted = size(held[0])
            number = max(batch_pixels // prod(wanted), 1)
            group = [sample for sample in waiting if size(sample) == wanted][:number]
            while len(group) < number and _has_room(held) and pull():
                group += [sample for sample in waiting[-1:] if size(sample) == wanted]
            infer(group)
            inferred = {id(sample) for sample in group}
            waiting = [sample for sample in waiting if id(sample) not in inferred]
        yield held.popleft()


def _has_room(held: deque[Sample]) -> bool:
    return len(held) < WINDOW and sum(sample.image.nbytes for sample in held) < WINDOW_BYTES
