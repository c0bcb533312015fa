"""Samples on their way from one pool of workers to the next."""

import numpy as np

from amn_dist.farms.stream import owned
from amn_dist.records import Evidence, Sample


def test_what_comes_out_of_shared_memory_is_whole_and_may_be_written() -> None:
    maps, labels = np.ones((1, 2, 2), np.float32), np.zeros((8, 8), np.uint8)
    evidence = Evidence(np.array([1], np.uint8), maps, maps.repeat(4, 1).repeat(4, 2), labels)
    arrays = [labels, maps, evidence.fine, evidence.classes]
    for array in arrays:
        array.flags.writeable = False
    sample = Sample("a", 0, np.zeros((8, 8, 3), np.uint8), np.ones(1, np.uint8), {"cam_seed": labels}, evidence)
    (own,) = owned([sample])
    assert own.evidence is not None and own.evidence.decided is not None
    copies = [own.evidence.decided, own.evidence.coarse, own.evidence.fine, own.evidence.classes]
    for array, before in zip(copies, arrays, strict=True):
        assert array.flags.writeable and np.array_equal(array, before)
    assert own.joined["cam_seed"].flags.writeable
