"""Compiled loops that let go of the interpreter's lock, on as many threads as torch has."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def in_parts(count: int, work: Callable[[int, int], object], *, fewest: int) -> None:
    """Call work(first, last) on as many parts of range(count) as torch has threads, each of `fewest` at least."""
    threads = torch.get_num_threads()
    step = max(-(-count // threads), fewest)
    if step >= count:
        work(0, count)
        return
    list(_threads(threads).map(lambda first: work(first, min(first + step, count)), range(0, count, step)))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="ops")


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not survive a fork
