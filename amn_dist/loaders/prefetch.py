"""Work done ahead of its use, in order, by a few threads that end with the iterator."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(work: Callable[[T], R], groups: Iterable[Iterable[T]], *, threads: int, depth: int) -> Generator[list[R]]:
    """Apply `work` to every item of every group; results in order, `depth` groups begun before they are asked for.

    An exception of `work` is raised where its group would come. Closing the iterator ends the threads.
    """
    pending: deque[list[Future[R]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        try:
            for group in groups:
                pending.append([pool.submit(work, item) for item in group])
                if len(pending) > depth:
                    yield [future.result() for future in pending.popleft()]
            while pending:
                yield [future.result() for future in pending.popleft()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
