"""A set of COCO's shape, and what a rehearsal reads from the records of a run."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amn_dist.config import load_config
from amn_dist.shards.shardset import ShardSet
from benchmarks.coco_like import QUALITIES, SIZES, draw_shape, make_coco_like
from benchmarks.memory import Watch, anonymous_mib, family, peak_by
from benchmarks.rehearsal import (
    CONFIG,
    PUBLISHED_FLOPS,
    TRAIN,
    Measured,
    Seen,
    parsed,
    projection,
    read_fit,
    read_map,
    read_stages,
    settings,
)
from data_shards.coco import pack_coco
from data_shards.scenes import draw_scene


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(2):
        (folder / f"{number}.jpg").write_bytes(draw_scene(number, seed=0, classes=6, size=(96, 160)).jpeg())
    return folder


def test_shapes_are_those_of_coco() -> None:
    shapes = [draw_shape(np.random.default_rng([0, n])) for n in range(4000)]
    assert np.mean([len(shape.tags) for shape in shapes]) == pytest.approx(2.9, abs=0.15)
    assert np.mean([1 in shape.tags for shape in shapes]) == pytest.approx(0.54, abs=0.03)
    assert np.mean([not shape.tags for shape in shapes]) == pytest.approx(702 / TRAIN, abs=0.006)
    for (width, height), share in SIZES.items():
        assert np.mean([shape.size == (width, height) for shape in shapes]) == pytest.approx(share, abs=0.03)
    assert sum(SIZES.values()) == pytest.approx(1) and sum(QUALITIES.values()) == pytest.approx(1)
    assert all(list(shape.tags) == sorted(set(shape.tags)) and max(shape.tags, default=1) <= 80 for shape in shapes)


def test_a_set_that_was_cut_off_is_drawn_on_and_packs(photographs: Path, tmp_path: Path) -> None:
    figures = make_coco_like(tmp_path / "a", "train2014", images=5, photographs=photographs)
    for folder in (tmp_path / "a", tmp_path / "b"):
        make_coco_like(folder, "train2014", images=2 if folder.name == "b" else 5, photographs=photographs)
        make_coco_like(folder, "train2014", images=5, photographs=photographs)
    both = [
        {path.name: hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / name).rglob("*.*")}
        for name in ("a", "b")
    ]
    assert both[0] == both[1] and len(both[0]) == 6
    pack_coco(tmp_path / "a", "train2014", tmp_path / "set")
    found = ShardSet.open(tmp_path / "set")
    assert len(found) == 5 and len(found.classes) == 81 and found.fields == ("gt.png", "jpg", "tags")
    tags = [int(found.load(n, "tags").sum()) for n in range(5)]
    assert np.mean(tags) == pytest.approx(figures["tags_per_image"], abs=1e-3)
    with Image.open(tmp_path / "a" / "train2014" / "COCO_train2014_000000000001.jpg") as image:
        assert image.size in SIZES


def write(folder: Path, *lines: dict[str, object]) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_fit_is_read_without_its_first_step(tmp_path: Path) -> None:
    steps = [
        {"step": n, "images_per_s": rate, "data_wait": 0.2, "memory_gib": 1.5} for n, rate in enumerate((1, 8, 10, 9))
    ]
    write(tmp_path / "classify", *steps, {"done": True, "seconds": 12.5})
    found = read_fit(tmp_path / "classify", cores=2)
    # 0.8 of a ninth of a second of computing an image, on two cores.
    assert found == Measured(9, pytest.approx(0.8 / 9 * 2), pytest.approx(0.2), 1.5, None, 12.5)
    assert read_fit(tmp_path / "amn", cores=2) is None


def test_a_stream_is_divided_by_how_busy_its_pools_were(tmp_path: Path) -> None:
    write(tmp_path / "cam", {"images_per_s": 4.0, "busy": {"network": 1.0, "cpu": 0.5}}, {"done": True, "seconds": 3})
    (tmp_path / "cam" / "000000.tar").write_bytes(b"x" * 100)
    network, cpu = (read_map(tmp_path / "cam", leg, workers=n, images=10) for leg, n in (("network", 1), ("cpu", 3)))
    assert network is not None and cpu is not None
    assert (network.image_s, cpu.image_s, network.disk_bytes_per_image) == (0.25, 0.375, 10)
    config = load_config(CONFIG, ("farm.pools=two",))
    found = read_stages(config, tmp_path, {"train": 10, "val": 2}, ["cam", "cam_seed", "amn"])
    assert found.keys() == {"cam", "cam_seed"}


def test_the_projection_stands_beside_the_published_arithmetic() -> None:
    found = {name: Measured(1, 1.0, None, None, 1000, 1) for name in ("cam", "cam_seed")}
    table = projection(found, peak=1e12)
    (name,) = (key for key in table if key.startswith("hours_by_"))
    assert table[name][next(iter(table[name]))].keys() == {"cam", "cam_seed", "total"}
    assert table["published_hours_here"]["cam"] == pytest.approx(PUBLISHED_FLOPS["cam"] / 1e12 / 3600, abs=1e-3)
    assert table["gigabytes"]["cam"] == pytest.approx(TRAIN * 1000 / 1e9, abs=0.01)


def test_settings_cap_steps_and_keep_what_is_published() -> None:
    published = load_config(CONFIG)
    config = load_config(CONFIG, tuple(settings(published, 12, 3, "cpu")))
    for name in ("classify", "amn", "irn", "segment"):
        before, now = getattr(published, name), getattr(config, name)
        lr = 1e-9 if name == "segment" else before.lr
        assert (now.steps, now.crop, now.lr, now.backbone.weights) == (3, before.crop, lr, None)
        assert now.batch == min(before.batch, 12)
    cores = len(os.sched_getaffinity(0))
    assert cores == 1 or config.farm.network_workers + config.farm.workers >= cores
    with pytest.raises(SystemExit):
        parsed(["--stages", "nothing"])
    with pytest.raises(SystemExit):
        parsed(["--images", str(TRAIN + 1)])


def test_what_was_seen_outlives_a_call(tmp_path: Path) -> None:
    for seconds, peak in ((2.0, 1.5), (0.1, 0.5)):
        seen = Seen(tmp_path / "seen.json")
        seen.pack("train", {"pack_s": seconds})
        seen.memory({"cam": peak, "walk": peak})
    again = Seen(tmp_path / "seen.json")
    assert again.sets == {"train": {"pack_s": 2.0}} and again.gib == {"cam": 1.5, "walk": 1.5}


def test_memory_is_watched_by_stage(tmp_path: Path, wait_for: Any) -> None:
    write(tmp_path / "cam", {})
    with Watch(tmp_path) as watch:
        wait_for(lambda: bool(watch.samples), "a sample")
    assert peak_by(watch.samples)["cam"] > 0.01
    assert os.getpid() in family(os.getppid()) and anonymous_mib(2**30) == 0
    assert peak_by([("a", 1024.0), ("b", 10.0), ("a", 2048.0)]) == {"a": 2.0, "b": 0.01}
