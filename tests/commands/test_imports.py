"""`amn import`: maps, proposals and weights of other code, and what is said of what cannot be taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amn_dist.config import dump_config
from amn_dist.runs.run import read_config
from amn_dist.shards.shardset import ShardSet

Say = Callable[..., Any]


@pytest.fixture(scope="module")
def theirs(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The maps of the finished run as dictionaries, and a file that belongs to no image."""
    from amn_dist.interchange.maps import export_maps
    from amn_dist.interchange.selection import select_maps

    folder = tmp_path_factory.mktemp("theirs") / "npy"
    export_maps(select_maps(str(finished)), folder)
    np.save(folder / "stranger.npy", np.zeros(3))
    return folder


def test_maps_come_in_as_they_went_out(finished: Path, theirs: Path, amn: Say, tmp_path: Path) -> None:
    images, out = finished.parent / "train", tmp_path / "maps"
    done = amn("import", "maps", theirs, "--images", images, "--out", out)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith(f"{out}: maps of 4 images in 2 shards, digest ")
    assert lines[1:] == [f"1 files belong to no image of {images} and were left alone"]
    ours, back = (ShardSet.open(str(place)) for place in (finished / "cam", out))
    assert [shard.sha256 for shard in ours.index.shards] == [shard.sha256 for shard in back.index.shards]


def test_maps_that_are_bad_stop_or_are_set_aside(
    finished: Path, theirs: Path, amn: Say, mistake: Callable[..., str], tmp_path: Path
) -> None:
    images = ShardSet.open(str(finished.parent / "train"))
    key = next(images.entry(n).key for n in range(4) if images.load(n, "tags").any())
    for file in theirs.glob("*.npy"):
        (tmp_path / "npy").mkdir(exist_ok=True)
        (tmp_path / "npy" / file.name).write_bytes(b"cut" if file.stem == key else file.read_bytes())
    words = ("import", "maps", tmp_path / "npy", "--images", images.url, "--out", tmp_path / "maps")
    assert f"1 of 4 maps are bad: [{key}]" in mistake(*words)
    done = amn(*words, "--skip-bad")
    assert (
        done.code == 0
        and f"1 images have no usable map and stay undecided; {tmp_path}/maps/quarantine.json" in done.out
    )
    assert key in (tmp_path / "maps" / "quarantine.json").read_text()


def test_values_beyond_one_need_a_scale(
    finished: Path, theirs: Path, amn: Say, mistake: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "npy").mkdir()
    for file in theirs.glob("*.npy"):
        # The test wrote these files itself.
        found = np.load(file, allow_pickle=True)
        maps = found.item() if found.dtype == object else {}
        if "cam" in maps:
            np.save(tmp_path / "npy" / file.name, np.array({**maps, "cam": maps["cam"] * 5 + 1}, dtype=object))
        elif maps:
            (tmp_path / "npy" / file.name).write_bytes(file.read_bytes())
    words = ("import", "maps", tmp_path / "npy", "--images", finished.parent / "train", "--out", tmp_path / "maps")
    assert "peak" in mistake(*words)
    assert amn(*words, "--scale", "peak").code == 0
    made = ShardSet.open(str(tmp_path / "maps"))
    assert max(made.load(n, "activation.f16").max(initial=0) for n in range(4)) <= 1


def test_proposals_come_in_from_a_folder_or_a_file(
    finished: Path, amn: Say, mistake: Callable[..., str], tmp_path: Path
) -> None:
    images, out = ShardSet.open(str(finished.parent / "train")), tmp_path / "proposals"
    tree: dict[str, Any] = {}
    for entry in (images.entry(ordinal) for ordinal in range(4)):
        size = [entry.height, entry.width]
        tree[entry.key] = [{"segmentation": {"size": size, "counts": [3, 4, entry.height * entry.width - 7]}}]
    (tmp_path / "sam").mkdir()
    for key, masks in {**tree, "stranger": []}.items():
        (tmp_path / "sam" / f"{key}.json").write_text(json.dumps(masks))
    done = amn("import", "regions", tmp_path / "sam", "--images", images.url, "--out", out)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith(f"{out}: proposals of 4 images in 2 shards, digest ")
    assert lines[1:] == [f"1 files belong to no image of {images.url} and were left alone"]
    assert amn("verify", out).code == 0
    file, words = tmp_path / "sam.json", ("import", "regions", tmp_path / "sam.json", "--images", images.url, "--out")
    key = images.entry(2).key
    file.write_text(json.dumps({**{name: masks for name, masks in tree.items() if name != key}, "x": [], "y": []}))
    assert f"1 of 4 images' proposals are bad: [{key}] sam.json: holds no proposals of it" in mistake(
        *words, tmp_path / "b"
    )
    done = amn(*words, tmp_path / "b", "--skip-bad")
    assert f"1 images have no usable proposals; {tmp_path}/b/quarantine.json says why" in done.out
    assert f"2 entries belong to no image of {images.url} and were left alone" in done.out
    file.write_text(json.dumps(tree)[:-9])
    assert "sam.json: " in (told := mistake(*words, tmp_path / "c")) and "the file is cut" in told


def test_weights_take_the_place_of_training(
    finished: Path, amn: Say, mistake: Callable[..., str], tmp_path: Path
) -> None:
    config, run = tmp_path / "c.yaml", tmp_path / "run"
    config.write_text(dump_config(read_config(finished / "config.yaml")))
    file = finished / "classify" / "model.safetensors"
    words = ("import", "weights", file, "--run", run, "--stage", "classify")
    assert "not a run" in mistake(*words)
    done = amn(*words, "--config", config, "--data", finished.parent)
    assert done.code == 0 and f" keys of {file}" in done.out and " for 3 classes, from " in done.out
    assert json.loads((run / "classify" / "done.json").read_text())["imported"] == "model.safetensors"
    planned = amn("plan", config, "--no-measure", "--run", run, "--data", finished.parent)
    assert any(
        row[1:4:2] == ["classify", "fit"] and "imported" in row for row in map(str.split, planned.out.splitlines())
    )
    assert "has its own classify already" in mistake(*words, code=1)
    assert "walk: is a map; weights belong to classify, irn, segment" in mistake(
        "import", "weights", file, "--run", run, "--stage", "walk"
    )
    other = mistake("import", "weights", finished / "irn" / "model.safetensors", "--run", run, "--stage", "segment")
    assert "irn/model.safetensors" in other


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("weights", "FILE", "--as", "cam"), "--as with --out, or --run with --stage"),
        (("weights", "FILE", "--as", "cam", "--out", "x.safetensors", "--stage", "irn"), "--as with --out, or"),
        (("weights", "nowhere.pth", "--as", "cam", "--out", "x.safetensors"), "nowhere.pth"),
        (("weights", "FILE", "--as", "cam", "--out", "x.pth"), "x.pth: found the ending '.pth', expected .safetensors"),
        (("weights", "FILE", "--as", "deeplab", "--out", "x.safetensors"), "model.safetensors"),
        (("maps", "nowhere", "--images", "IMAGES", "--out", "o"), "nowhere"),
        (("maps", ".", "--images", "nowhere", "--out", "o"), "nowhere"),
        (("regions", "nowhere", "--images", "IMAGES", "--out", "o"), "nowhere: no such folder; expected .json files"),
        (("regions", ".", "--images", "nowhere", "--out", "o"), "nowhere"),
        (("regions", ".", "--images", "IMAGES", "--out", "o"), "holds no .json files"),
    ],
)
def test_a_mistake_is_one_line(
    finished: Path, words: tuple[str, ...], told: str, mistake: Callable[..., str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"FILE": str(finished / "classify" / "model.safetensors"), "IMAGES": str(finished.parent / "train")}
    assert told in mistake("import", *(places.get(word, word) for word in words))
    assert not list(tmp_path.iterdir())


def test_a_kind_that_is_not_there_is_named(amn: Say) -> None:
    done = amn("import", "weights", "x.pth", "--as", "nix", "--out", "x.safetensors")
    assert done.code == 2 and "nix" in done.err and "deeplab" in done.err
