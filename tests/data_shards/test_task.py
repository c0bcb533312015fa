"""Whoever packs a set, its bytes are the same."""

import contextlib
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from amn_dist.errors import ShardError, StageError
from amn_dist.farms.farm import Chunk, Farm
from amn_dist.farms.local import LocalFarm
from amn_dist.shards.index import Index
from data_shards.coco import pack_coco
from data_shards.folder import pack_folder
from data_shards.shard import SampleRules
from data_shards.source import PackSource
from data_shards.synthetic import pack_synthetic
from data_shards.task import pack_task, packing_farm
from data_shards.voc import pack_voc

Pack = Callable[..., Index]


@pytest.fixture(params=["synthetic", "voc", "folder", "coco"])
def pack(request: pytest.FixtureRequest, bad: Path, tmp_path: Path) -> Pack:
    if request.param == "synthetic":
        return partial(pack_synthetic, images=9, size=(32, 48), shard_size=2)
    if request.param == "voc":
        return partial(pack_voc, bad / "base", "train", shard_size=2)
    if request.param == "coco":
        shutil.copytree(bad / "coco" / "train2014", tmp_path / "root" / "train2014")
        ok = bad / "coco" / "annotations" / "ok.json"
        return partial(pack_coco, tmp_path / "root", "train2014", annotations=ok, shard_size=2)
    photos = bad / "base" / "JPEGImages"
    table = tmp_path / "labels.csv"
    table.write_text("file,labels\n" + "".join(f"{path.name},disc\n" for path in sorted(photos.glob("*.jpg"))))
    masks, classes = bad / "base" / "SegmentationClass", bad / "base" / "classes.txt"
    return partial(pack_folder, photos, table, masks=masks, classes=classes, shard_size=2)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_farm_packs_the_bytes_that_threads_pack(pack: Pack, tmp_path: Path) -> None:
    pack(out=tmp_path / "threads")
    pack(out=tmp_path / "farm", farm=LocalFarm())
    assert contents(tmp_path / "farm") == contents(tmp_path / "threads")


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Farm]:
    with contextlib.ExitStack() as stack:
        farm = stack.enter_context(packing_farm(2, None))
        assert farm is not None
        yield farm


def test_two_processes_pack_the_same_bytes_and_go_on_where_it_stopped(
    two_workers: Farm, coco_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    pack = partial(pack_coco, coco_sample, "val2014", shard_size=4)
    pack(out=tmp_path / "threads")
    monkeypatch.chdir(tmp_path)
    pack(out=Path("out"), farm=two_workers)
    assert contents(out) == contents(tmp_path / "threads")
    (out / "index.json").unlink()
    (out / "000003.json").unlink()
    (out / "000005.tar").write_bytes(b"half")
    mtime_ns = (out / "000000.tar").stat().st_mtime_ns
    pack(out=out, farm=two_workers)
    assert contents(out) == contents(tmp_path / "threads")
    assert (out / "000000.tar").stat().st_mtime_ns == mtime_ns


def test_bad_samples_found_by_processes_are_named_or_left_out(two_workers: Farm, bad: Path, tmp_path: Path) -> None:
    root = tmp_path / "base"
    shutil.copytree(bad / "base", root, copy_function=shutil.copyfile)
    shutil.copyfile(bad / "images" / "truncated.jpg", root / "JPEGImages" / "shape_02.jpg")
    with pytest.raises(ShardError, match=r"1 of 3 samples are bad: \[shape_02\].*truncated"):
        pack_voc(root, "train", tmp_path / "out", shard_size=1, farm=two_workers)
    pack_voc(root, "train", tmp_path / "out", shard_size=1, skip_bad=True, farm=two_workers)
    pack_voc(root, "train", tmp_path / "threads", shard_size=1, skip_bad=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "threads")
    assert json.loads((tmp_path / "out" / "quarantine.json").read_text())["count"] == 1


def test_a_shard_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    class Blocked(LocalFarm):
        def run(self, task, numbers):
            (tmp_path / "out" / "000001.tar" / "folder").mkdir(parents=True)
            return super().run(task, numbers)

    with pytest.raises(StageError, match=r"pack: 1 shard\(s\) failed \(1\).*000001\.tar: cannot be written"):
        pack_synthetic(tmp_path / "out", images=6, shard_size=2, size=(32, 48), farm=Blocked())


def test_a_worker_that_sees_another_folder_refuses(tmp_path: Path) -> None:
    task = pack_task([[]], tmp_path / "elsewhere", rules=SampleRules(3), skip_bad=False, mark="pack.json")
    with pytest.raises(ShardError, match="all machines share"):
        task.legs(split=True)[0].open()


def test_a_shard_takes_its_own_sources_along_and_no_others(coco_sample: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    class Weigh(LocalFarm):
        def run(self, task, numbers):
            seen.extend(len(part) for part in task.leg.sources)
            assert all(isinstance(source, PackSource) for part in task.leg.sources for source in pickle.loads(part))
            assert task.chunks(1) == (Chunk(1, 0, 10),)
            return super().run(task, numbers)

    pack_coco(coco_sample, "train2014", tmp_path / "out", shard_size=10, farm=Weigh())
    # Some 740 annotations of 34 bytes and 100 images; the outlines themselves are 300 kB.
    assert len(seen) == 10 and sum(seen) < 110_000


def test_no_farm_unless_asked_for_and_needed(tmp_path: Path) -> None:
    with packing_farm(None, None) as farm:
        assert farm is None
    index = pack_synthetic(tmp_path / "out", images=4, size=(32, 48))
    with packing_farm(None, "nowhere:1") as farm:
        assert pack_synthetic(tmp_path / "out", images=4, size=(32, 48), farm=farm) == index
        with pytest.raises(ShardError, match="no such folder"):
            pack_coco(tmp_path, "train2014", tmp_path / "other", farm=farm)
