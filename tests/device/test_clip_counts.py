"""CLIP's maps with the shapes of ViT-B/16 and of COCO's photographs, as a GPU would be given them, without values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from amn_dist.config import Config
from amn_dist.records import Sample
from amn_dist.stages.clip import ClipMap
from benchmarks.device.counting import counting
from benchmarks.device.fake_cuda import fake_cuda
from benchmarks.device.stage_counts import CLASSES, clip_worker

SIZE = (427, 640)
"""Of many of COCO's photographs; it is stretched to whole patches, which takes launches that 480x640 does not."""
GROUP_LAUNCHES, IMAGE_LAUNCHES = 298, 100
"""Of a group, and of each of its photographs beside, whatever their number of tags. They may only fall."""
LANDINGS = 2
"""Waits of the host in a group: for the maps it finds boxes in, and for the results."""


def photographs(*tags: int) -> Iterator[Sample]:
    """One for each number of tags."""
    for place, number in enumerate(tags):
        hot = (np.arange(CLASSES - 1) < number).astype(np.uint8)
        yield Sample(str(place), place, np.zeros((*SIZE, 3), np.uint8), hot)


def test_a_group_of_cocos_photographs() -> None:
    step, launches = ClipMap(Config(name="x"), ("background",)), []
    with fake_cuda() as seen:
        opened = clip_worker()
        list(step.run(opened, photographs(2)))  # tables of a size go to the device once
        for group in ((5,), (5, 1, 3)):
            seen.forget()
            with counting() as counts:
                assert len(list(step.run(opened, photographs(*group)))) == len(group)
            launches.append(counts.launches)
            assert not seen.mixed and not seen.waits and not seen.blocking, seen
            assert sum(seen.landings.values()) == LANDINGS
    alone, three = launches
    each = (three - alone) / 2
    assert each <= IMAGE_LAUNCHES and alone - each <= GROUP_LAUNCHES, launches
