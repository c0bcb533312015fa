"""Samples of one size together through a network, all of them out in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from math import prod
from typing import Any

from amn_dist.ops.allocator import bound_freed_memory
from amn_dist.records import Sample

WINDOW = 256
"""Samples held at most while a group is filled."""
WINDOW_BYTES = 512 * 2**20
"""Bytes of their photos held at most."""
CRF_IMAGES = 32
"""Samples whose CRFs are given to a device together."""

Size = tuple[int, int]
Finish = Callable[[], None]
"""Waits for what a device makes of a group, and fills it in."""
Infer = Callable[[list[Sample]], Finish | None]
"""Fills a group in; or gives it to a device and returns what finishes it: the next group is then given first."""


def photo_size(sample: Sample) -> Size:
    """(H, W) of a sample's photo."""
    height, width = sample.image.shape[:2]
    return height, width


def in_groups(
    samples: Iterable[Sample],
    infer: Infer,
    *,
    batch_pixels: int,
    size: Callable[[Sample], Size] = photo_size,
) -> Iterator[Sample]:
    """Pass samples of equal size through `infer`; yield all in the order they came.

    A group takes as many samples as batch_pixels holds at their size, one at least. No further ahead is read than it
    takes to fill the group of the oldest sample; and where a group is still on a device, that of the next one.
    """
    return Grouping(samples, infer, size, lambda size: max(batch_pixels // prod(size), 1)).run()


def in_batches(samples: Iterable[Sample], infer: Infer, *, number: int) -> Iterator[Sample]:
    """Pass samples as they come through `infer`, so many at a time; yield them in order."""
    return Grouping(samples, infer, lambda sample: None, lambda kind: number).run()


class Grouping:
    """Samples between their arrival and their leave. kind: what those of a group share. number: how many they are."""

    def __init__(
        self,
        samples: Iterable[Sample],
        infer: Infer,
        kind: Callable[[Sample], Hashable],
        number: Callable[[Any], int],
    ) -> None:
        self._source, self._infer, self._kind, self._number = iter(samples), infer, kind, number
        self._held: deque[Sample] = deque()
        self._waiting: list[Sample] = []
        """Those of `_held` that no group has taken yet."""
        self._pending: deque[tuple[list[Sample], Finish]] = deque()
        """Groups on a device."""
        self._held_bytes = 0

    def run(self) -> Iterator[Sample]:
        while self._held or self._pull():
            if self._is_waiting(self._held[0]):
                self._take_group()
            if self._is_pending(self._held[0]):
                if len(self._pending) == 1 and (self._waiting or self._pull()):
                    self._take_group()
                self._pending.popleft()[1]()
                continue
            sample = self._held.popleft()
            self._held_bytes -= sample.image.nbytes
            yield sample

    def _is_waiting(self, sample: Sample) -> bool:
        return bool(self._waiting) and self._waiting[0] is sample

    def _is_pending(self, sample: Sample) -> bool:
        return any(one is sample for group, _ in self._pending for one in group)

    def _take_group(self) -> None:
        """Give the group of the oldest waiting sample to `infer`."""
        wanted = self._kind(self._waiting[0])
        number = self._number(wanted)
        group = [sample for sample in self._waiting if self._kind(sample) == wanted][:number]
        while len(group) < number and self._has_room() and self._pull():
            group += [sample for sample in self._waiting[-1:] if self._kind(sample) == wanted]
        taken = {id(sample) for sample in group}
        self._waiting = [sample for sample in self._waiting if id(sample) not in taken]
        finish = self._infer(group)
        if finish is None:
            bound_freed_memory()
        else:
            self._pending.append((group, finish))

    def _pull(self) -> bool:
        for sample in self._source:
            self._held.append(sample)
            self._held_bytes += sample.image.nbytes
            self._waiting.append(sample)
            return True
        return False

    def _has_room(self) -> bool:
        return len(self._held) < WINDOW and self._held_bytes < WINDOW_BYTES
