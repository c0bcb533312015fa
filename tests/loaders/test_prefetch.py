"""Work ahead: in order, bounded, with an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from amn_dist.loaders.prefetch import map_ahead, read_ahead


def slow_first(item: int) -> int:
    time.sleep(0.02 if item % 3 == 0 else 0)
    return item * item


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("depth", [1, 3])
def test_results_come_in_order(threads: int, depth: int) -> None:
    groups = [[1, 2, 3], [], [6], [7, 8]]
    assert list(map_ahead(slow_first, groups, threads=threads, depth=depth)) == [[1, 4, 9], [], [36], [49, 64]]


def test_only_so_many_groups_are_begun() -> None:
    asked: list[int] = []

    def groups() -> Iterator[list[int]]:
        for number in range(100):
            asked.append(number)
            yield [number]

    results = map_ahead(slow_first, groups(), threads=2, depth=3)
    next(results)
    assert asked == [0, 1, 2, 3]
    results.close()


def test_an_error_comes_where_its_group_would() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    results = map_ahead(work, [[0], [1], [2], [3]], threads=2, depth=2)
    assert [next(results), next(results)] == [[0], [1]]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_closing_ends_the_threads() -> None:
    results = map_ahead(slow_first, ([number] for number in range(1000)), threads=3, depth=2)
    next(results)
    assert any(thread.name.startswith("ahead") for thread in threading.enumerate())
    results.close()
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_items_read_ahead_come_in_order_and_bounded() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    ahead = read_ahead(items(), depth=3)
    assert next(ahead) == 0
    time.sleep(0.05)
    assert len(taken) <= 1 + 3 + 1  # asked for, in the queue, and in the hand of the thread
    assert list(ahead) == list(range(1, 50))


def test_a_fault_of_what_is_read_ahead_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("two")

    ahead = read_ahead(items(), depth=4)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="two"):
        next(ahead)


def test_closing_what_is_read_ahead_ends_its_thread() -> None:
    before = threading.active_count()
    ahead = read_ahead(iter(int, 1), depth=2)
    next(ahead)
    ahead.close()
    assert threading.active_count() == before
