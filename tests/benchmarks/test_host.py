"""The host's part beside a GPU: streams run as in a worker, and their rows are what came back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from amn_dist.loaders.prefetch import map_ahead, read_ahead
from amn_dist.shards.shardset import ShardSet
from benchmarks.device.extras import jpeg
from benchmarks.device.free_device import DRAWN, drawn_labels, drawn_maps, free_device
from benchmarks.device.stage_counts import published
from benchmarks.host import TARGETS_MS, companies, draw_images, measured, running, streams
from benchmarks.host_costs import PARTS
from benchmarks.thread_times import KINDS, thread_times

KEPT = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "host.json").read_text())
IMAGES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set like COCO with every stream's shards beside it."""
    root = tmp_path_factory.mktemp("host")
    (root / "photographs").mkdir()
    jpeg(root / "photographs" / "0.jpg", 0, (480, 640))
    draw_images(root, root / "photographs", IMAGES, seed=0)
    spent = measured(root, rounds=1)
    assert spent.keys() == PARTS.keys() and all(row[kind]["n"] == 1 for row in spent.values() for kind in KINDS)
    return root


def test_every_stream_writes_what_the_device_gave_back(folder: Path) -> None:
    images = ShardSet.open(folder / "images")
    fields = {"cam": ("activation.f16",), "amn_map": ("activation.f16",), "cam_seed": ("seed.png",),
              "amn_seed": ("seed.png",), "walk": ("mask.png",), "predict": ("mask.png", "raw.png")}  # fmt: skip
    for stage, names in fields.items():
        made = ShardSet.open(folder / stage)
        made.join(images)
        assert made.fields == names
        for entry in made.shard(0):
            for field in names:
                values = made.load(entry.ordinal, field)
                count = int(images.load(entry.ordinal, "tags").sum())
                expected = [_came_back(field, count, (entry.height, entry.width), draw) for draw in range(DRAWN)]
                assert any(np.array_equal(values, one) for one in expected)


def _came_back(field: str, count: int, size: tuple[int, int], draw: int) -> np.ndarray:
    if field != "activation.f16":
        return drawn_labels(size, draw).numpy()
    grid = (-(-size[0] // 4), -(-size[1] // 4))
    return drawn_maps((count, *grid), draw).numpy().astype(np.float16)


def test_a_stream_runs_as_beside_a_gpu(folder: Path) -> None:
    config = published()
    run = running(streams(config)[3], config, folder)
    assert run.work.leg.accelerated and run.work.leg.together == 256
    assert run.work.leg.source is not None and run.work.leg.source.loader.threads == 8
    before = torch.Tensor.is_cuda, torch.Tensor.copy_, torch.empty
    with free_device():
        assert torch.zeros(1, device="meta").is_cuda and not torch.zeros(1).is_cuda
        spent = thread_times(run)
    assert before == (torch.Tensor.is_cuda, torch.Tensor.copy_, torch.empty)
    assert all(spent[kind] > 0 for kind in KINDS)
    assert sum(spent[kind] for kind in KINDS) == pytest.approx(spent["all"])


def test_chunks_come_in_the_company_a_worker_is_given(folder: Path) -> None:
    config = published()
    (chunk,) = running(streams(config)[0], config, folder).task.chunks(0)
    chunks = [chunk] * 100
    assert [len(company) for company in companies(chunks)] == [86, 14]


def test_time_is_told_by_kind_of_thread() -> None:
    def spin(seconds: float) -> float:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return seconds

    def work() -> None:
        list(read_ahead((spin(0.02) for _ in range(2)), depth=1))
        list(map_ahead(spin, [[0.02], [0.02], [0.02]], threads=2, depth=2))

    spent = thread_times(work)
    assert spent["reading"] >= 40 and spent["encoding"] >= 60 and spent["own"] < spent["all"]


def test_the_kept_figures_are_of_all_streams_and_within_their_targets() -> None:
    assert KEPT["streams"].keys() == PARTS.keys() == KEPT["sum_of_parts_ms"].keys()
    for name, target in TARGETS_MS.items():
        row = KEPT["streams"][name]["all"]
        assert row["n"] >= 5 and row["median_ms"] <= target == row["target_ms"]
