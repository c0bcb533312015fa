"""Our farm against Ray Data: the same Maps over the same shards, equal bytes, and what deaths cost.

Speed: CAM of a small network and its seeds, as one pool and as two; shards that cost nothing, for the price of one.
Deaths: a worker, a node, a driver (which is started again) are killed in the middle of a Map that writes down what it
does (deaths.py).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ray

from amn_dist.config import FarmSection, Loader, load_config
from amn_dist.farms.local import LocalFarm
from amn_dist.farms.ray.farm import connect
from amn_dist.farms.stream import MapTask, Source
from amn_dist.models.weights import save_network
from amn_dist.shards.shardset import ShardSet
from amn_dist.stages.classify import CamMap, cam_network
from amn_dist.stages.seed import SeedMap
from benchmarks.farm import Spin
from benchmarks.harness import race, rates, torch_threads
from benchmarks.rivals.deaths import Deaths, written
from benchmarks.rivals.farms import CORES, OURS, PEER, hired_records, our_farm, our_records, peer_records
from data_shards.synthetic import pack_synthetic

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "voc12_amn.yaml"
SMALL = ("name=small", "stride=8", "weights=null", "frozen_taps=0")


def cam_task(folder: Path, out: Path) -> MapTask:
    """CAM of a small network with random weights, and the seeds of its maps."""
    config = load_config(CONFIG, tuple(f"classify.backbone.{setting}" for setting in SMALL))
    images = ShardSet.open(folder / "set")
    weights = folder / "weights.safetensors"
    if not weights.is_file():
        save_network(cam_network(config, len(images.classes)), weights)
    maps = (CamMap(config, len(images.classes), str(weights)), SeedMap("cam_seed", config.cam_seed))
    folders = tuple(str(out / step.name) for step in maps)
    for name in folders:
        Path(name).mkdir(parents=True, exist_ok=True)
    source = Source(images.url, (), Loader(name="torchvision", threads=1), digest=images.digest)
    return MapTask("cam+cam_seed", source, maps, folders, images.shard_sizes, 4)


def speeds(folder: Path, *, quick: bool, rounds: int) -> dict[str, Any]:
    """Images a second of the same stream; every round writes all shards, which are compared with a farm of one.

    A run keeps its workers from stage to stage: ours are raced as they are then, and hired anew.
    """
    images, side, shard = (12, (48, 64), 4) if quick else (96, (240, 320), 8)
    pack_synthetic(folder / "set", images=images, size=side, classes=2, shard_size=shard)
    expected = cam_task(folder, folder / "expected")
    numbers = range(len(expected.sizes))
    with torch_threads(FarmSection().threads):  # as many as a worker has: products of matrices are cut by them
        list(LocalFarm().run(expected, numbers))
    calls: dict[str, Callable[[], Any]] = {}
    for pools, split in (("one pool", False), ("two pools", True)):
        rivals = {
            OURS: partial(our_records, our_farm(split=split)),
            f"{OURS} hired anew": partial(hired_records, split=split),
            PEER: partial(peer_records, split=split),
        }
        for name, run in rivals.items():
            label = f"{name}, {pools}"
            calls[label] = partial(run, cam_task(folder, folder / label), numbers)
    found = rates(race(calls, rounds=rounds), images)
    for label in calls:
        assert written(folder / label) == written(folder / "expected"), f"{label}: other bytes than a farm of one"
    return {"images": images, "shards": len(numbers), "farms": found}


def prices(*, quick: bool, rounds: int) -> dict[str, Any]:
    """Seconds of a shard whose samples cost nothing."""
    task, count = Spin(turns=0, size=4, chunk=4), 20 if quick else 400
    leg = task.legs(split=False)[0].open()
    expected = {number: task.finish(number, [leg(task.chunks(number)[0], None)]) for number in range(count)}
    rivals: dict[str, Callable[..., dict[int, Any]]] = {
        OURS: partial(our_records, our_farm()),
        f"{OURS} hired anew": hired_records,
        PEER: peer_records,
    }
    for name, run in rivals.items():
        assert run(task, range(count)) == expected, f"{name}: other records"
    timings = race({name: partial(run, task, range(count)) for name, run in rivals.items()}, rounds=rounds)
    return {"shards": count, **{name: timing.as_json(per=count) for name, timing in timings.items()}}


def measured(*, quick: bool, rounds: int) -> dict[str, Any]:
    """Speeds and prices in a cluster of this process, then deaths in one of two nodes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        connect(FarmSection(workers=3 * CORES), None)
        record = {"speed": speeds(folder, quick=quick, rounds=rounds), "price": prices(quick=quick, rounds=rounds)}
        ray.shutdown()
        (folder / "deaths").mkdir()
        with contextlib.closing(Deaths(folder / "deaths", quick=quick)) as deaths:
            record["deaths"] = {
                "samples": deaths.samples,
                **{
                    farm: {name: deaths.struck(farm, name) for name in ("nobody", "worker", "node", "driver")}
                    for farm in (OURS, PEER)
                },
            }
    for name, row in record["deaths"][OURS].items():
        assert row["whole"], f"our farm lost something with a killed {name}: {row}"
    return record


def rows(record: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Rows for people."""
    yield ("farm", "images/s", "ratio", "ms a shard that costs nothing")
    for name, row in record["speed"]["farms"].items():
        price = record["price"].get(name.partition(",")[0], {}).get("median_s", 0.0) if "one" in name else None
        yield (name, f"{row['images_per_s']:.2f}", f"{row['ratio']:.2f}", "" if price is None else f"{1e3 * price:.1f}")
    yield ("killed", "farm", "whole", "samples done again", "seconds", "driver grown MiB")
    for farm in (OURS, PEER):
        for name, row in record["deaths"][farm].items():
            figures = (str(row.get("seconds", "")), str(row.get("driver_grown_mib", "")))
            yield (name, farm, str(row["whole"]), str(row["samples_again"]), *figures)
