"""Groups of one size: order kept, each once, no further ahead than needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amn_dist.loaders import grouping
from amn_dist.loaders.grouping import in_batches, in_groups, photo_size
from amn_dist.records import Sample

SIZES = [(4, 5), (5, 4), (2, 2)]


def samples(sizes: list[int], read: list[int]) -> Iterator[Sample]:
    for ordinal, which in enumerate(sizes):
        read.append(ordinal)
        yield Sample(key=str(ordinal), ordinal=ordinal, image=np.zeros((*SIZES[which], 3), np.uint8), tags=np.zeros(1))


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 100))
def test_order_and_groups(sizes: list[int], pixels: int) -> None:
    groups: list[list[Sample]] = []
    out = list(in_groups(samples(sizes, []), groups.append, batch_pixels=pixels))
    assert [sample.ordinal for sample in out] == list(range(len(sizes)))
    assert sorted(sample.ordinal for group in groups for sample in group) == list(range(len(sizes)))
    for group in groups:
        (size,) = {photo_size(sample) for sample in group}
        assert len(group) == 1 or len(group) * size[0] * size[1] <= pixels


def test_every_sample_is_inferred_before_it_leaves() -> None:
    done: set[int] = set()
    stream = samples([0, 1, 0, 1, 2, 0], [])
    for sample in in_groups(stream, lambda group: done.update(s.ordinal for s in group), batch_pixels=60):
        assert sample.ordinal in done


def test_full_groups_where_the_window_allows() -> None:
    groups: list[list[int]] = []
    list(in_groups(samples([0, 1] * 6, []), lambda g: groups.append([s.ordinal for s in g]), batch_pixels=60))
    assert groups == [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]]


def test_single_images_are_not_read_ahead() -> None:
    read: list[int] = []
    stream = in_groups(samples([0] * 5, read), lambda group: None, batch_pixels=1)
    next(stream)
    next(stream)
    assert read == [0, 1]


@pytest.mark.parametrize(("name", "bound"), [("WINDOW", 4), ("WINDOW_BYTES", 240)])
def test_the_window_is_bounded(name: str, bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, name, bound)
    read: list[int] = []
    stream = in_groups(samples([0] + [1] * 30, read), lambda group: None, batch_pixels=40)
    assert next(stream).ordinal == 0 and len(read) == 4


def test_another_size_may_rule() -> None:
    groups: list[int] = []
    stream = in_groups(
        samples([0, 1, 2], []), lambda group: groups.append(len(group)), batch_pixels=300, size=lambda sample: (10, 10)
    )
    assert len(list(stream)) == 3 and groups == [3]


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(1, 100))
def test_a_group_is_finished_after_the_next_is_begun_and_before_it_leaves(sizes: list[int], pixels: int) -> None:
    events: list[tuple[str, int]] = []
    finished: set[int] = set()

    def infer(group: list[Sample]) -> Callable[[], None]:
        first = group[0].ordinal
        events.append(("begin", first))

        def finish() -> None:
            events.append(("finish", first))
            finished.update(sample.ordinal for sample in group)

        return finish

    left = []
    for sample in in_groups(samples(sizes, []), infer, batch_pixels=pixels):
        assert sample.ordinal in finished
        left.append(sample.ordinal)
    assert left == list(range(len(sizes)))
    begun = [first for kind, first in events if kind == "begin"]
    assert [first for kind, first in events if kind == "finish"] == begun
    for first, later in pairwise(begun):
        assert events.index(("begin", later)) < events.index(("finish", first))


def test_batches_take_samples_as_they_come() -> None:
    groups: list[list[int]] = []
    out = list(in_batches(samples([0, 1, 2, 0, 1], []), lambda g: groups.append([s.ordinal for s in g]), number=2))
    assert [sample.ordinal for sample in out] == [0, 1, 2, 3, 4] and groups == [[0, 1], [2, 3], [4]]
