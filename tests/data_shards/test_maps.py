"""A folder of maps to a shard set: whole, resumable, over its images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from amn_dist.errors import ShardError
from amn_dist.records import grid_size
from amn_dist.shards.shardset import ShardSet
from data_shards.maps import import_maps
from data_shards.synthetic import pack_synthetic


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("images") / "train"
    pack_synthetic(folder, images=7, seed=0, classes=2, shard_size=3)
    return ShardSet.open(str(folder))


def maps_of(images: ShardSet, ordinal: int) -> np.ndarray:
    entry = images.entry(ordinal)
    count = int(images.load(ordinal, "tags").sum())
    values = np.random.default_rng(ordinal).random((count, *grid_size(entry.height, entry.width)))
    return values.astype(np.float16)


@pytest.fixture
def folder(images: ShardSet, tmp_path: Path) -> Path:
    root = tmp_path / "maps"
    root.mkdir()
    for ordinal in range(len(images)):
        keys = np.flatnonzero(images.load(ordinal, "tags"))
        content = {"keys": keys, "cam": maps_of(images, ordinal).astype(np.float32)}
        np.save(root / f"{images.entry(ordinal).key}.npy", np.array(content, dtype=object), allow_pickle=True)
    return root


def test_every_map_lies_over_its_image(images: ShardSet, folder: Path, tmp_path: Path) -> None:
    (folder / "somebody_else.npy").write_bytes(b"never opened")
    done = import_maps(folder, images.url, tmp_path / "set")
    made = ShardSet.open(str(tmp_path / "set"))
    images.join(made)
    assert made.kind == "activation" and made.classes == images.classes and done.others == 1 and not done.bad
    for ordinal in range(len(images)):
        assert np.array_equal(made.load(ordinal, "activation.f16"), maps_of(images, ordinal))


def test_a_stopped_import_goes_on_to_the_same_set(images: ShardSet, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    whole = import_maps(folder, images.url, out).index.digest
    for name in ("index.json", "000001.json"):
        (out / name).unlink()
    mtime_ns = (out / "000000.tar").stat().st_mtime_ns
    assert import_maps(folder, images.url, out).index.digest == whole
    assert import_maps(folder, images.url, out).index.digest == whole
    assert (out / "000000.tar").stat().st_mtime_ns == mtime_ns


def test_other_files_or_settings_are_not_mixed_in(images: ShardSet, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    import_maps(folder, images.url, out)
    with pytest.raises(ShardError, match="finished maps of other files or settings"):
        import_maps(folder, images.url, out, scale="peak")
    with pytest.raises(ShardError, match="holds other files"):
        import_maps(folder, images.url, images.url)
    (out / "index.json").unlink()
    changed = import_maps(folder, images.url, out, scale="peak")
    assert changed.index.digest == import_maps(folder, images.url, tmp_path / "anew", scale="peak").index.digest


def test_bad_maps_are_named_and_stop_or_are_left_out(images: ShardSet, folder: Path, tmp_path: Path) -> None:
    first, second = images.entry(0).key, images.entry(4).key
    (folder / f"{first}.npy").unlink()
    (folder / f"{second}.npy").write_bytes(b"\x93NUMPY nonsense")
    out = tmp_path / "set"
    with pytest.raises(
        ShardError, match=rf"2 of 7 maps are bad: \[{first}\] .*not there.*\[{second}\] {second}\.npy: is"
    ):
        import_maps(folder, images.url, out)
    assert not (out / "index.json").exists()
    done = import_maps(folder, images.url, out, skip_bad=True)
    assert [key for key, _ in done.bad] == [first, second]
    listed = json.loads((out / "quarantine.json").read_text())
    assert [sample["key"] for sample in listed["samples"]] == [first, second]
    made = ShardSet.open(str(out))
    images.join(made)
    assert made.load(0, "activation.f16").shape[0] == 0 and made.load(1, "activation.f16").shape[0] > 0
    (out / "index.json").unlink()
    again = import_maps(folder, images.url, out, skip_bad=True)
    assert again.bad == done.bad and again.index == done.index
    with pytest.raises(ShardError, match="2 of 7 maps are bad"):
        import_maps(folder, images.url, out)


def test_a_folder_of_other_names_is_refused_and_nothing_is_left(images: ShardSet, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "x.npy").touch()
    with pytest.raises(
        ShardError, match=rf"none of 1 files .*found x\.npy, expected such as {images.entry(0).key}\.npy"
    ):
        import_maps(tmp_path / "maps", images.url, tmp_path / "set")
    (tmp_path / "maps" / "x.npy").rename(tmp_path / "maps" / f"{images.entry(0).key}.npy")
    with pytest.raises(ShardError, match="7 of 7 maps are bad"):
        import_maps(tmp_path / "maps", images.url, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_maps_in_folders_belong_to_keys_joined_as_the_packer_does(
    images: ShardSet, folder: Path, tmp_path: Path
) -> None:
    key = images.entry(0).key
    assert "_" in key, "the synthetic keys have a part to make a folder of"
    head, tail = key.split("_", 1)
    (folder / head).mkdir()
    (folder / f"{key}.npy").rename(folder / head / f"{tail}.npy")
    assert not import_maps(folder, images.url, tmp_path / "set").bad
    (folder / f"{key}.npy").write_bytes(b"")
    with pytest.raises(ShardError, match=f"both belong to {key}"):
        import_maps(folder, images.url, tmp_path / "other")
