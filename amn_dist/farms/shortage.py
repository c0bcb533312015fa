"""Memory that does not suffice for a photograph, told with its name, its size and what to set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from amn_dist.errors import StageError, printable
from amn_dist.records import Sample

ALLOCATORS = re.compile(r"out of memory|not enough memory|can't allocate memory|cannot allocate|bad_alloc", re.I)
"""In messages of libraries that were refused memory."""


@contextmanager
def telling_shortage(name: str, handed: list[Sample]) -> Iterator[None]:
    """Turn what a library raises when it is refused memory into a StageError. handed: the samples a map was handed."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not ALLOCATORS.search(str(error)):
            raise
        largest = max(handed, key=lambda sample: sample.image.shape[0] * sample.image.shape[1], default=None)
        at = "" if largest is None else f" at {largest.key} ({largest.image.shape[1]}x{largest.image.shape[0]} pixels)"
        raise StageError(
            f"{name}: memory does not suffice{at}; set fewer or smaller scales ({name.partition('+')[0]}.scales), "
            f"infer.batch_pixels, fewer farm.workers, or give more memory ({printable(error, 80)})"
        ) from error


def noted(samples: Iterable[Sample], handed: list[Sample]) -> Iterator[Sample]:
    """The samples, the last of which is in `handed`."""
    for sample in samples:
        handed[:] = [sample]
        yield sample
