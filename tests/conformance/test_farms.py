"""Every farm: each shard once, failures named, dead workers replaced, the same bytes whoever does what."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from amn_dist.config import Config, FarmSection, Loader
from amn_dist.config import Seed as SeedSection
from amn_dist.errors import ConfigError, ShardError, StageError
from amn_dist.farms.farm import Chunk, Farm, Report
from amn_dist.farms.local import LocalFarm
from amn_dist.farms.ray.farm import RayFarm, connect, plan_pools
from amn_dist.farms.stream import MapTask, Source
from amn_dist.interfaces import Map, Needs, parts_of
from amn_dist.models.deeplab import segment_network
from amn_dist.models.weights import save_network
from amn_dist.records import Evidence, Sample
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import index_all
from amn_dist.stages.classify import CamMap, cam_network
from amn_dist.stages.predict import PredictMap
from amn_dist.stages.seed import SeedMap
from amn_dist.telemetry import summary
from data_shards.synthetic import pack_synthetic
from tests.tiny import SMALL

CHUNK = 3


@dataclass(frozen=True)
class NoteLeg:
    """Tells which chunk it saw; kills its worker once at shard `deadly`, raises at `bad` shards."""

    name: str
    needs: Needs
    folder: str = ""
    bad: frozenset[int] = frozenset()
    broken: int | None = None
    deadly: int | None = None
    together: int = 0

    def open(self) -> Callable[[Chunk, Any], list[Any]]:
        def bundle(chunks: Sequence[Chunk]) -> list[Any]:
            assert len(chunks) > 1 and sum(map(len, chunks)) <= self.together + CHUNK
            return [work(chunk, None) for chunk in chunks]

        def work(chunk: Chunk, passed: Any) -> list[Any]:
            if chunk.shard in self.bad and chunk.start == 0:
                raise ShardError(f"shard {chunk.shard} is bad on purpose")
            if chunk.shard == self.broken:
                raise ValueError("a slip in a map")
            scar = Path(self.folder) / "scar"
            if chunk.shard == self.deadly and not scar.exists():
                scar.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return [*(passed or []), (self.name, chunk.start, chunk.stop)]

        work.bundle = bundle  # type: ignore[attr-defined]
        return work


@dataclass(frozen=True)
class Note:
    """Writes one file a shard, when all its chunks went through both legs."""

    folder: str
    bad: frozenset[int] = frozenset()
    broken: int | None = None
    deadly: int | None = None
    size: int = 2 * CHUNK + 1
    together: int = 0
    """Samples the first leg is given at a time; then it is that one which is deadly."""
    name: str = "note"

    def chunks(self, number: int) -> Sequence[Chunk]:
        return [Chunk(number, start, min(start + CHUNK, self.size)) for start in range(0, self.size, CHUNK)]

    def legs(self, *, split: bool) -> Sequence[NoteLeg]:
        ends = {"first": self.deadly} if self.together else {"second": self.deadly}
        first = NoteLeg(
            "first", "network", self.folder, self.bad, self.broken, ends.get("first"), together=self.together
        )
        return first, NoteLeg("second", "cpu", self.folder, deadly=ends.get("second"))

    def finish(self, number: int, parts: Sequence[Any]) -> list[Any]:
        # The report of a finished shard may die with its worker; only then is a shard finished again.
        with open(Path(self.folder) / f"{number}.txt", "x" if self.deadly is None else "w") as file:
            file.write("x")
        return [seen for part in parts for seen in part]

    @property
    def seen(self) -> list[tuple[str, int, int]]:
        """What a finished shard tells."""
        return [(leg, chunk.start, chunk.stop) for chunk in self.chunks(0) for leg in ("first", "second")]


@pytest.fixture(scope="module")
def farms() -> Iterator[dict[str, Farm]]:
    sections = {
        "two": FarmSection(pools="two", workers=1, network_workers=1, ahead=1),
        "ray": FarmSection(workers=1),
    }
    connect(FarmSection(workers=3), None)
    running = {name: RayFarm(section) for name, section in sections.items()}
    yield {"local": LocalFarm(), **running}
    running["ray"].close()


@pytest.fixture(params=["local", "ray", "two"])
def farm(request: pytest.FixtureRequest, farms: dict[str, Farm]) -> Farm:
    return farms[request.param]


def finished(reports: Sequence[Report]) -> dict[int, Any]:
    """Records by shard, none of them given twice."""
    records = [(report.shard, report.record) for report in reports if report.shard is not None]
    assert len(dict(records)) == len(records)
    return dict(records)


def test_every_shard_is_finished_once_from_all_its_chunks(farm: Farm, tmp_path: Path) -> None:
    note = Note(str(tmp_path))
    reports = list(farm.run(note, range(9)))
    assert finished(reports) == {number: note.seen for number in range(9)}
    assert len(list(tmp_path.iterdir())) == 9
    assert reports[-1].images == {"first": 63, "second": 63}


def test_no_shards_is_no_work(farm: Farm, tmp_path: Path) -> None:
    assert list(farm.run(Note(str(tmp_path)), [])) == []


def test_failed_shards_are_named_after_the_others_are_done(farm: Farm, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"2 shard\(s\) failed \(1, 4\).*shard 1 is bad on purpose"):
        list(farm.run(Note(str(tmp_path), bad=frozenset({1, 4})), range(6)))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["0", "2", "3", "5"]


@pytest.mark.parametrize("name", ["ray", "two"])
def test_a_slip_in_a_worker_is_told_with_its_traceback(farms: dict[str, Farm], name: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"1 shard\(s\) failed \(2\).*a slip in a map.*first traceback"):
        list(farms[name].run(Note(str(tmp_path), broken=2), range(4)))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["0", "1", "3"]


@pytest.mark.parametrize("name", ["ray", "two"])
def test_a_killed_worker_is_replaced_and_its_chunk_done_again(
    farms: dict[str, Farm], name: str, tmp_path: Path
) -> None:
    note = Note(str(tmp_path), deadly=3)
    reports = list(farms[name].run(note, range(8)))
    assert finished(reports) == {number: note.seen for number in range(8)}
    assert reports[-1].images == {"first": 56, "second": 56}
    (warning,) = deaths(reports)
    # The result of the job before may die with the worker; then that one is the first it owed.
    assert re.match(r"shard \d: its worker", warning) and "farm.workers" in warning


@pytest.mark.parametrize("name", ["ray", "two"])
def test_bundles_end_fail_and_die_as_their_chunks_do_alone(farms: dict[str, Farm], name: str, tmp_path: Path) -> None:
    note = Note(str(tmp_path), bad=frozenset({1, 4}), broken=6, deadly=3, together=3 * CHUNK)
    reports: list[Report] = []
    with pytest.raises(StageError, match=r"3 shard\(s\) failed \(1, 4, 6\).*shard 1 is bad on purpose"):
        for report in farms[name].run(note, range(12)):
            reports.append(report)
    assert finished(reports) == {number: note.seen for number in range(12) if number not in (1, 4, 6)}
    assert len(deaths(reports)) == 1


def deaths(reports: Sequence[Report]) -> list[str]:
    """What is said of workers that died. A busy machine may also be told that a new one is long in coming."""
    warnings = [report.warning for report in reports if report.warning]
    late = [warning for warning in warnings if warning.startswith("no worker has started")]
    said = [warning for warning in warnings if "its worker" in warning]
    assert len(said) + len(late) == len(warnings), warnings
    return said


def test_figures_of_a_report_add_up() -> None:
    report = Report({"cam": 30, "cam_seed": 20}, busy={"network": 0.4, "cpu": 0.98})
    figures = report.metrics(before=100, total=220, seconds=10.0)
    assert figures["step"] == 120 and figures["images_per_s"] == 2.0 and figures["seconds_left"] == 50.0
    assert figures["legs_per_s"] == {"cam": 3.0, "cam_seed": 2.0} and figures["busy"]["cpu"] == 0.98
    assert summary(figures) == "2.0 images/s, busy: cpu 98% network 40%"


@pytest.mark.parametrize(
    ("settings", "resources", "sizes"),
    [
        ({}, {"CPU": 8}, {"workers": 8}),
        ({"workers": 3, "threads": 2}, {"CPU": 8}, {"workers": 3}),
        ({}, {"CPU": 64, "GPU": 8}, {"network": 8, "cpu": 56}),
        ({"gpus_per_worker": 0.5, "threads": 2}, {"CPU": 64, "GPU": 4}, {"network": 8, "cpu": 24}),
        ({"pools": "one"}, {"CPU": 64, "GPU": 8}, {"workers": 8}),
        ({"pools": "two", "workers": 9}, {"CPU": 4}, {"network": 1, "cpu": 3}),
    ],
)
def test_pools_fit_the_cluster(settings: dict[str, Any], resources: dict[str, float], sizes: dict[str, int]) -> None:
    pools = plan_pools(FarmSection(**settings), resources)
    assert {name: size for name, (_, size) in pools.items()} == sizes
    gpus = sum(kind.gpus * size for kind, size in pools.values())
    assert gpus == resources.get("GPU", 0) and all(kind.device for name, (kind, _) in pools.items() if name != "cpu")


def test_a_share_no_gpu_has_is_refused() -> None:
    with pytest.raises(ValidationError, match="gpus_per_worker"):
        FarmSection(gpus_per_worker=4.0)
    with pytest.raises(ConfigError, match=r"gpus_per_worker: found 1\.0, but the cluster has 0\.5 GPU"):
        plan_pools(FarmSection(), {"CPU": 8, "GPU": 0.5})


@dataclass(frozen=True)
class RedMap:
    """Full-size maps from the pixels themselves, for every tagged class."""

    name: str = "cam"
    needs: Needs = "network"
    fields: tuple[str, ...] = ("activation.npy",)

    def open(self) -> None:
        return None

    def run(self, opened: None, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            classes = np.flatnonzero(sample.tags).astype(np.uint8) + 1
            fine = np.stack([np.roll(sample.image[..., 0], int(c), 1) for c in classes]).astype(np.float32) / 256
            sample.evidence = Evidence(classes, fine[:, ::4, ::4], fine)
            sample.made[self.name] = {"activation.npy": sample.evidence.coarse.astype(np.float16)}
            yield sample


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("images")
    pack_synthetic(folder, images=14, seed=3, classes=2, shard_size=8)
    return ShardSet.open(folder)


@pytest.fixture(scope="module")
def cam(tmp_path_factory: pytest.TempPathFactory) -> CamMap:
    config = Config.model_validate({"name": "x", "classify": {"backbone": SMALL}, "cam": {"scales": [1.0, 0.5]}})
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_network(cam_network(config, 3), path)
    return CamMap(config, 3, str(path))


def stream(images: ShardSet, first: Map, out: Path, *, chunk: int) -> MapTask:
    """A map with full-size maps and the seeds behind it, into out/cam and out/seed."""
    return MapTask(
        name="cam+seed",
        source=Source(images.url, (), Loader(name="torchvision")),
        maps=(first, SeedMap("seed", SeedSection(foreground=0.5, background=0.2))),
        folders=(str(out / "cam"), str(out / "seed")),
        sizes=images.shard_sizes,
        chunk=chunk,
    )


def written(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("chunk", [3, 100])
def test_chunks_leave_the_bytes_of_whole_shards(farm: Farm, chunk: int, images: ShardSet, tmp_path: Path) -> None:
    list(LocalFarm().run(stream(images, RedMap(), tmp_path / "whole", chunk=8), range(2)))
    list(farm.run(stream(images, RedMap(), tmp_path / "chunks", chunk=chunk), range(2)))
    assert written(tmp_path / "chunks") == written(tmp_path / "whole")
    assert len(written(tmp_path / "whole")) == 8


def test_a_worker_with_threads_of_its_own_leaves_the_same_values(
    farms: dict[str, Farm], cam: CamMap, images: ShardSet, tmp_path: Path
) -> None:
    for name, farm in farms.items():
        task = replace(stream(images, cam, tmp_path / name, chunk=3), accelerated=name != "local")
        list(farm.run(task, range(2)))
    assert written(tmp_path / "two") == written(tmp_path / "local")  # whose labels cores make
    assert written(tmp_path / "ray" / "cam") == written(tmp_path / "local" / "cam")
    seeds = [opened(tmp_path / name / "seed", images) for name in ("ray", "local")]
    for ordinal in range(len(images)):
        quick, usual = (made.load(ordinal, "seed.png") for made in seeds)
        assert np.array_equal(quick, usual)


def opened(folder: Path, images: ShardSet) -> ShardSet:
    """What a Map wrote over images."""
    index_all(folder, kind="seed", classes=images.classes, count=len(images.shard_sizes))
    return ShardSet.open(str(folder))


def test_networks_and_crf_in_two_pools_leave_the_bytes_of_one(
    farms: dict[str, Farm], cam: CamMap, images: ShardSet, tmp_path: Path
) -> None:
    for name, farm in farms.items():
        reports = list(farm.run(stream(images, cam, tmp_path / name, chunk=3), range(2)))
        legs = ["cam", "seed"] if name == "two" else ["cam+seed"]
        assert reports[-1].images == dict.fromkeys(legs, 14)
        assert set(reports[-1].busy) == {"local": set(), "ray": {"workers"}, "two": {"network", "cpu"}}[name]
    assert written(tmp_path / "ray") == written(tmp_path / "local")
    assert written(tmp_path / "two") == written(tmp_path / "local")


def test_the_crf_of_predictions_is_done_by_cores(farms: dict[str, Farm], images: ShardSet, tmp_path: Path) -> None:
    config = Config.model_validate({"name": "x", "segment": {"backbone": SMALL}, "predict": {"crf": "cpu"}})
    save_network(segment_network(config, 3), tmp_path / "model.safetensors")
    maps = parts_of(PredictMap(config, 3, str(tmp_path / "model.safetensors"), accelerated=True))
    source = Source(images.url, (), Loader(name="torchvision"))
    for name, farm in farms.items():
        task = MapTask("predict", source, maps, (None, str(tmp_path / name)), images.shard_sizes, 3)
        (*_, last) = farm.run(task, range(2))
        legs = ["predict_logits", "predict"] if name == "two" else ["predict_logits+predict"]
        assert list(last.images.items()) == [(leg, 14) for leg in legs]
        assert name != "two" or min(last.busy["cpu"], last.busy["network"]) > 0
    assert written(tmp_path / "two") == written(tmp_path / "ray") == written(tmp_path / "local")
    assert len(written(tmp_path / "two")) == 4


def test_a_finished_map_of_a_stream_is_not_written_again(farm: Farm, images: ShardSet, tmp_path: Path) -> None:
    whole = stream(images, RedMap(), tmp_path, chunk=3)
    list(farm.run(MapTask(**{**vars(whole), "folders": (None, whole.folders[1])}), [1]))
    assert sorted(written(tmp_path)) == ["seed/000001.json", "seed/000001.tar"]
