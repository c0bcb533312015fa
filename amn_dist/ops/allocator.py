"""What the process does with memory that torch lets go."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cache

from amn_dist.ops.host_memory import host_memory

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Settings of glibc's mallopt."""
LEAST_KEPT = 2**30
"""Bytes of freed memory that may stay with the process on any host."""
SHARE = 0.5
"""Of the memory there is for a core, what may stay if that is more."""


class _Heap:
    """glibc's heap. floor: bytes of the process in memory when nothing that was freed was among them. kept: bytes that
    may be kept beyond it."""

    def __init__(self, libc: ctypes.CDLL) -> None:
        self.trim = libc.malloc_trim
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        self.floor = resident()
        self.kept = max(LEAST_KEPT, int(SHARE * host_memory()[0]) // (os.cpu_count() or 1))

    def give_back(self) -> None:
        self.trim(0)
        self.floor = resident()


def keep_freed_memory() -> None:
    """Have this process keep freed memory for its next allocation; without glibc nothing happens.

    Large maps otherwise come fresh from the kernel, page by page, which costs as much as a 1x1 convolution.
    """
    _heap()


def bound_freed_memory() -> None:
    """Give freed memory back to the system once more was gathered than may be kept, if this process keeps any.

    Maps of photographs of many sizes leave gaps that others do not fit in: VGG-16 at four scales, of which a VOC
    photograph takes 1.4 GiB, was at 6 to 8 GiB after 300 of them.
    """
    if _heap.cache_info().currsize and (heap := _heap()) is not None and resident() - heap.floor > heap.kept:
        heap.give_back()


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    with suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0


@cache
def _heap() -> _Heap | None:
    try:
        return _Heap(ctypes.CDLL("libc.so.6"))
    except (OSError, AttributeError):
        return None
