"""Scoring needs no more memory for many shards than for few."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from amn_dist.config import Loader
from amn_dist.errors import StageError
from amn_dist.farms.local import LocalFarm
from amn_dist.farms.stream import Join, Source, TallyTask
from amn_dist.shards.format import encode
from amn_dist.shards.writer import write_index, write_shard
from amn_dist.stages.score import ScoreTally

CLASSES, SHARDS, SIZE = 81, 40, 64
NAMES = tuple(f"class {number}" for number in range(CLASSES))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with truth and the masks of a stage, many shards of them."""
    root, random = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    photo, tags = b"\xff\xd8\xff", encode("tags", (random.random(CLASSES - 1) < 0.03).astype(np.uint8))
    labels = [encode("gt.png", random.integers(0, CLASSES, (16, 16), dtype=np.uint8)) for _ in range(8)]
    for kind, field in (("images", "gt.png"), ("walk", "mask.png")):
        rest = {"jpg": photo, "tags": tags} if kind == "images" else {}
        reports = [
            write_shard(
                root / kind,
                number,
                [
                    (f"k{number * SIZE + n}", (16, 16), {**rest, field: labels[(n + len(rest)) % 8]})
                    for n in range(SIZE)
                ],
            )
            for number in range(SHARDS)
        ]
        write_index(root / kind, kind=kind, classes=NAMES, reports=reports)
    return root


def task(sets: Path) -> TallyTask:
    joins = (Join("truth", str(sets / "images"), "gt.png"), Join("walk", str(sets / "walk"), "mask.png"))
    source = Source(str(sets / "images"), joins, Loader(), pixels=False)
    return TallyTask("score", source, ScoreTally(CLASSES, ("walk",)), (SIZE,) * SHARDS)


def test_memory_stays_the_same_however_many_shards(sets: Path) -> None:
    held, sums = [], np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
    tracemalloc.start()
    try:
        for report in LocalFarm().run(task(sets), range(SHARDS)):
            sums += report.record["walk/counts"]
            del report
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sums.sum() == SHARDS * SIZE * 256
    # Remembered, the samples of these shards would take a megabyte and more; the parser keeps some thousand strings.
    assert max(held[20:]) - max(held[3:8]) < 300_000


def test_a_set_of_other_keys_fails_the_shards_that_differ(tmp_path: Path) -> None:
    mask = encode("gt.png", np.zeros((16, 16), np.uint8))
    for kind, fields in (("images", {"jpg": b"", "tags": bytes(80), "gt.png": mask}), ("walk", {"mask.png": mask})):
        keys = [[f"k{number}_{n}" for n in range(4)] for number in range(3)]
        keys[1][2] += "x" * (kind == "walk")
        reports = [write_shard(tmp_path / kind, n, [(k, (16, 16), fields) for k in keys[n]]) for n in range(3)]
        write_index(tmp_path / kind, kind=kind, classes=NAMES, reports=reports)
    done = []
    with pytest.raises(StageError, match=r"1 shard\(s\) failed \(1\).*sample 6 is k1_2x, but k1_2"):
        for report in LocalFarm().run(task(tmp_path), range(3)):
            done.append(report.shard)
    assert done == [0, 2]
