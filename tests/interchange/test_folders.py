"""Exports as folders: resumable, unmixed, and readable the way published code reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from amn_dist.cli import app
from amn_dist.errors import ConfigError, ShardError
from amn_dist.interchange.folders import EXPORT, file_of
from amn_dist.interchange.maps import export_maps
from amn_dist.interchange.masks import export_masks
from amn_dist.interchange.selection import SelectedField, select_maps, select_masks
from amn_dist.ops.resize import upsample
from amn_dist.records import grid_size
from amn_dist.shards.format import encode
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import write_index, write_shard
from data_shards.maps import import_maps
from data_shards.synthetic import pack_synthetic


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("images") / "train"
    pack_synthetic(folder, images=5, seed=0, classes=2, shard_size=3)
    return ShardSet.open(str(folder))


@pytest.fixture(scope="module")
def made(images: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Maps and labels over the images, at random."""
    folder, random = tmp_path_factory.mktemp("made") / "set", np.random.default_rng(0)
    reports = []
    for number in range(len(images.shard_sizes)):
        rows = []
        for entry in images.shard(number):
            size, count = (entry.height, entry.width), int(images.load(entry.ordinal, "tags").sum())
            maps = random.random((count, *grid_size(*size))).astype(np.float16)
            labels = random.choice([0, 1, 2, 255], size).astype(np.uint8)
            fields = {"activation.f16": maps, "mask.png": labels}
            rows.append((entry.key, size, {name: encode(name, of) for name, of in fields.items()}))
        reports.append(write_shard(folder, number, rows))
    write_index(folder, kind="walk", classes=images.classes, reports=reports)
    return ShardSet.open(str(folder))


def test_masks_keep_every_id_under_the_colours_of_voc(made: ShardSet, tmp_path: Path) -> None:
    assert export_masks(select_masks(made.url), tmp_path / "out") == 5
    for ordinal in range(5):
        with Image.open(tmp_path / "out" / f"{made.entry(ordinal).key}.png") as picture:
            assert picture.mode == "P" and picture.getpalette()[3:6] == [128, 0, 0]
            assert np.array_equal(np.array(picture), made.load(ordinal, "mask.png"))


def test_labels_are_told_by_what_the_format_decodes(made: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"holds activation\.f16, expected labels .*; amn export maps hands",
    ):
        select_masks(made.url, field="activation.f16")
    fields = {"other.png": encode("other.png", np.zeros((2, 2), np.uint8)), "x.npy": encode("x.npy", np.zeros(2))}
    reports = [write_shard(tmp_path / "set", 0, [("k", (2, 2), fields)])]
    write_index(tmp_path / "set", kind="other", classes=("background", "a"), reports=reports)
    assert select_masks(str(tmp_path / "set")).field == "other.png"


def test_the_same_export_fills_what_is_missing(made: ShardSet, tmp_path: Path) -> None:
    found, out = select_masks(made.url), tmp_path / "out"
    export_masks(found, out)
    first, second = (out / f"{made.entry(i).key}.png" for i in range(2))
    content, kept = first.read_bytes(), second.stat().st_mtime_ns
    first.unlink()
    (out / ".part-1-x.png").write_bytes(b"half")
    export_masks(found, out)
    assert first.read_bytes() == content and second.stat().st_mtime_ns == kept
    assert not list(out.glob(".part-*"))


def test_a_folder_of_something_else_is_left_alone(made: ShardSet, images: ShardSet, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds something else \(mine\.txt\)"):
        export_masks(select_masks(made.url), tmp_path)
    export_masks(select_masks(made.url), tmp_path / "out")
    with pytest.raises(ConfigError, match="holds something else"):
        export_maps(select_maps(made.url, images=images.url), tmp_path / "out")


@pytest.mark.parametrize("key", ["../../x", "/etc/x", "a/b", "..", "a.b", "", "x\n"])
def test_no_key_leads_out_of_the_folder(key: str, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="key"):
        file_of(tmp_path, key, ".png")


def test_a_set_with_such_a_key_is_not_even_opened(made: ShardSet, tmp_path: Path) -> None:
    for path in Path(made.url).iterdir():
        text = path.read_bytes().replace(made.entry(0).key.encode(), b"../" + made.entry(0).key.encode()[3:])
        (tmp_path / path.name).write_bytes(text)
    with pytest.raises(ShardError, match="key"):
        export_masks(SelectedField(ShardSet.open(str(tmp_path)), "mask.png"), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1, "a": 2}', "\xff", "{}"])
def test_a_mark_that_is_none_of_ours_is_something_else(made: ShardSet, tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / EXPORT).write_bytes(text.encode("latin1"))
    with pytest.raises(ConfigError, match="choose an empty or new folder"):
        export_masks(select_masks(made.url), tmp_path / "out")


def test_maps_are_what_published_loaders_expect(made: ShardSet, images: ShardSet, tmp_path: Path) -> None:
    assert export_maps(select_maps(made.url, images=images.url), tmp_path / "out") == 5
    for ordinal in range(5):
        entry, tags = images.entry(ordinal), images.load(ordinal, "tags")
        found = np.load(tmp_path / "out" / f"{entry.key}.npy", allow_pickle=True).item()
        assert found["keys"].tolist() == np.flatnonzero(tags).tolist()
        labels = np.pad(found["keys"] + 1, (1, 0), mode="constant")  # as cam_to_ir_label does
        assert labels.tolist() == [0, *(np.flatnonzero(tags) + 1)]
        maps = made.load(ordinal, "activation.f16")
        assert np.array_equal(found["cam"].numpy(), maps.astype(np.float32))  # a tensor, as make_sem_seg wants it
        assert np.array_equal(found["high_res"], upsample(maps, (entry.height, entry.width)))


@pytest.mark.parametrize("fine", [True, False])
def test_exported_maps_come_back_bit_by_bit(made: ShardSet, images: ShardSet, tmp_path: Path, fine: bool) -> None:
    export_maps(select_maps(made.url, images=images.url), tmp_path / "out", fine=fine)
    import_maps(tmp_path / "out", images.url, tmp_path / "back")
    back = ShardSet.open(str(tmp_path / "back"))
    for ordinal in range(5):
        assert np.array_equal(back.load(ordinal, "activation.f16"), made.load(ordinal, "activation.f16"))


def test_the_commands_say_what_they_wrote(made: ShardSet, images: ShardSet, tmp_path: Path) -> None:
    def amn(*arguments: str) -> str:
        ended = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
        assert ended.exit_code == 0, ended.stderr
        return ended.stdout

    assert "5 masks (walk, mask.png)" in amn("export", "masks", made.url, "--out", f"{tmp_path}/voc")
    said = amn("export", "masks", made.url, "--format", "coco", "--out", f"{tmp_path}/coco.json")
    assert "regions in 5 images" in said and (tmp_path / "coco.json").is_file()
    amn("export", "maps", made.url, "--images", images.url, "--out", f"{tmp_path}/npy")
    (tmp_path / "npy" / f"{made.entry(0).key}.npy").unlink()
    said = amn("import", "maps", f"{tmp_path}/npy", "--images", images.url, "--out", f"{tmp_path}/set", "--skip-bad")
    assert "maps of 5 images in 2 shards" in said and "1 images have no usable map" in said


def test_maps_need_their_images(made: ShardSet, images: ShardSet) -> None:
    with pytest.raises(ConfigError, match="--images"):
        select_maps(made.url)
    with pytest.raises(ConfigError, match=r"no field activation\.f16; found gt\.png"):
        select_maps(images.url, images=images.url)
    with pytest.raises(ConfigError, match=r"no field raw\.png; found activation\.f16, mask\.png"):
        select_masks(made.url, field="raw.png")
