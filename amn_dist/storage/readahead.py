"""Ranges of remote files, and what is asked for next: a file read in order comes in windows, each before its use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import pairwise

WINDOW = 4 * 2**20
"""Bytes of a window."""
MAX_WINDOWS = 6
"""Windows held at most: 24 MiB a set."""
GAP = 256 * 2**10
"""Bytes that may be skipped between two reads in order: headers and fields nobody asked for."""

Fetch = Callable[[str, int, int], bytes]
"""Exactly the bytes of a file from an offset on: name, offset, size."""


class ReadAhead:
    """Reads of several threads. A read out of order is one request for its bytes alone."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._sizes: dict[str, int] = {}
        self._next: dict[str, str] = {}
        self._ends: dict[str, int] = {}
        self._windows: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def expect(self, files: Sequence[tuple[str, int]]) -> None:
        """Say which files there are, by name and bytes, in the order in which they are read."""
        self._sizes = dict(files)
        self._next = {name: after for (name, _), (after, _) in pairwise(files)}

    def read(self, name: str, offset: int, size: int) -> bytes:
        """The bytes of a range."""
        total = self._sizes.get(name, 0)
        if not size or size > WINDOW * (MAX_WINDOWS - 2) or offset + size > total:
            return self._fetch(name, offset, size)
        numbers = range(offset // WINDOW, (offset + size - 1) // WINDOW + 1)
        with self._lock:
            in_order = self._in_order(name, offset, size)
            if not in_order and any((name, number) not in self._windows for number in numbers):
                numbers = range(0)
            windows = [self._window(name, number) for number in numbers]
            if windows:
                self._begin_next(name, numbers[-1])
        if not windows:
            return self._fetch(name, offset, size)
        content = b"".join(self._result(name, number, window) for number, window in zip(numbers, windows, strict=True))
        start = offset - numbers[0] * WINDOW
        return content[start : start + size]

    def _in_order(self, name: str, offset: int, size: int) -> bool:
        end = self._ends.get(name)
        self._ends[name] = max(offset + size, end or 0)
        return end is not None and end - WINDOW <= offset <= end + GAP

    def _begin_next(self, name: str, number: int) -> None:
        if (number + 1) * WINDOW < self._sizes[name]:
            self._window(name, number + 1)
        elif (after := self._next.get(name)) is not None:
            self._ends.setdefault(after, 0)
            self._window(after, 0)

    def _window(self, name: str, number: int) -> Future[bytes]:
        """A window, begun if need be; the one that was not used for longest goes."""
        key = (name, number)
        if key not in self._windows:
            future: Future[bytes] = Future()
            self._windows[key] = future
            start = number * WINDOW
            size = min(WINDOW, self._sizes[name] - start)
            threading.Thread(target=self._fill, args=(future, name, start, size), daemon=True).start()
        self._windows.move_to_end(key)
        while len(self._windows) > MAX_WINDOWS:
            self._windows.popitem(last=False)
        return self._windows[key]

    def _fill(self, future: Future[bytes], name: str, start: int, size: int) -> None:
        try:
            future.set_result(self._fetch(name, start, size))
        except BaseException as error:
            future.set_exception(error)

    def _result(self, name: str, number: int, window: Future[bytes]) -> bytes:
        try:
            return window.result()
        except Exception:
            with self._lock:
                self._windows.pop((name, number), None)
            raise
