"""Samples on their way from one pool of workers to the next."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import enumerate as enumerate_threads

import numpy as np
import pytest

from amn_dist.config import Loader
from amn_dist.errors import ShardError
from amn_dist.farms.farm import Chunk, fed_by
from amn_dist.farms.stream import JOINERS, Join, MapTask, MapWork, Source, owned
from amn_dist.records import Evidence, Sample
from amn_dist.shards.format import decode
from amn_dist.shards.shardset import ShardSet
from data_shards.synthetic import pack_synthetic


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


class Passing:
    """A Map that yields what was joined to its samples."""

    name, needs, fields = "passing", "network", ("seed.png",)

    def open(self) -> None:
        return None

    def run(self, opened: None, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            sample.made[self.name] = {"seed.png": sample.joined["gt"]}
            yield sample


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five drawn scenes, packed with their truth."""
    folder = tmp_path_factory.mktemp("scenes")
    pack_synthetic(folder / "train", images=5, classes=2, size=(48, 64), shard_size=5)
    return folder


def work(images: ShardSet, *, cores: int | None) -> MapWork:
    """The stream opened, beside a GPU with so many cores or on a CPU."""
    source = Source(images.url, (Join("gt", images.url, "gt.png"),), Loader(name="torchvision"))
    task = MapTask("passing", source, (Passing(),), ("made",), images.shard_sizes, 3, accelerated=cores is not None)  # type: ignore[arg-type]
    (leg,) = (fed_by(one, cores or 1) for one in task.legs(split=True))
    opened = leg.open()
    assert isinstance(opened, MapWork)
    return opened


def test_a_leg_beside_a_gpu_makes_the_same_labels(scenes: Path) -> None:
    images = ShardSet.open(scenes / "train")
    plain, beside = work(images, cores=None), work(images, cores=12)
    assert plain.leg.source is not None and beside.leg.source is not None
    assert (plain.leg.source.loader.threads, plain.leg.source.joiners) == ("auto", 0)
    assert (beside.leg.source.loader.threads, beside.leg.source.joiners) == (6, JOINERS)
    chunks = [Chunk(0, 0, 3), Chunk(0, 3, 5)]
    apart = [plain(chunk, None) for chunk in chunks]
    together = beside.bundle(chunks)
    for rows, expected in zip(together, apart, strict=True):
        assert [row[:2] for row in rows[0]] == [row[:2] for row in expected[0]]
        for (_, _, fields), (_, _, others) in zip(rows[0], expected[0], strict=True):
            # The ids are the same; only how their bytes are found differs.
            assert np.array_equal(decode("seed.png", fields["seed.png"]), decode("seed.png", others["seed.png"]))
    assert not [thread.name for thread in enumerate_threads() if thread.name.startswith(("join", "read ahead"))]


def test_what_cannot_be_joined_is_named_beside_a_gpu_too(scenes: Path) -> None:
    images = ShardSet.open(scenes / "train")
    broken = work(images, cores=12)
    assert broken.leg.source is not None
    wanted = replace(broken.leg.source, joins=(Join("gt", images.url, "absent.png"),))
    with pytest.raises(ShardError, match=r"\.absent\.png: no such field; found"):
        replace(broken, read=wanted.open()).bundle([Chunk(0, 0, 2)])
