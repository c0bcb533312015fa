"""Processor time of a call by kind of thread: its own, those ahead of it and behind, those of libraries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.device.counting import Patches

KINDS = ("own", "reading", "joining", "encoding", "decoding")
"""The thread of the call; those that read ahead, join what earlier stages made, encode; and of libraries, decode."""
NAMES = {"read ahead": "reading", "join": "joining", "ahead": "encoding"}
"""Kinds by what threads are named (loaders/prefetch.py, farms/stream.py)."""


def thread_times(call: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds of processor time of a call, by kind of thread, and of all together as `all`."""
    spent = dict.fromkeys(KINDS, 0.0)
    began, own = time.process_time(), time.thread_time()
    with Patches() as patch:
        patch.setattr(threading.Thread, "run", _timed(threading.Thread.run, spent))
        call()
        spent["own"] = (time.thread_time() - own) * 1e3
        for thread in threading.enumerate():
            if _kind(thread) is not None:
                thread.join()
    spent["all"] = (time.process_time() - began) * 1e3
    spent["decoding"] = spent["all"] - sum(spent[kind] for kind in KINDS[:-1])
    return spent


def _timed(real: Callable[[threading.Thread], None], spent: dict[str, float]) -> Callable[[threading.Thread], None]:
    def run(thread: threading.Thread) -> None:
        began = time.thread_time()
        try:
            real(thread)
        finally:
            if (kind := _kind(thread)) is not None:
                spent[kind] += (time.thread_time() - began) * 1e3

    return run


def _kind(thread: threading.Thread) -> str | None:
    return NAMES.get(thread.name.partition("_")[0])
