"""Work done ahead of its use, in order, by a few threads that end with the iterator."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    work: Callable[[T], R], groups: Iterable[Iterable[T]], *, threads: int, depth: int, name: str = "ahead"
) -> Generator[list[R]]:
    """Apply `work` to every item of every group; results in order, `depth` groups begun before they are asked for.

    An exception of `work` is raised where its group would come. Closing the iterator ends the threads. name: of theirs.
    """
    pending: deque[list[Future[R]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        try:
            for group in groups:
                pending.append([pool.submit(work, item) for item in group])
                if len(pending) > depth:
                    yield [future.result() for future in pending.popleft()]
            while pending:
                yield [future.result() for future in pending.popleft()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_ahead(items: Iterable[T], *, depth: int) -> Generator[T]:
    """The items, taken from where they come in a thread of their own, `depth` at most before they are asked for.

    An exception there is raised where its item would come. Closing the iterator ends the thread.
    """
    queue: Queue[tuple[str, Any]] = Queue(depth)
    over = Event()
    thread = Thread(target=_fill, args=(items, queue, over), name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = queue.get()
            if kind == "item":
                yield value
            elif kind == "fault":
                raise value
            else:
                return
    finally:
        over.set()
        thread.join()


def _fill(items: Iterable[Any], queue: Queue[tuple[str, Any]], over: Event) -> None:
    try:
        for item in items:
            if not _put(queue, ("item", item), over):
                break
        _put(queue, ("end", None), over)
    except BaseException as fault:  # whatever it is, it belongs to whoever waits for the item
        _put(queue, ("fault", fault), over)


def _put(queue: Queue[tuple[str, Any]], value: tuple[str, Any], over: Event) -> bool:
    """Put a value where it is waited for; False once nobody does."""
    while not over.is_set():
        try:
            queue.put(value, timeout=0.1)
            return True
        except Full:
            continue
    return False
