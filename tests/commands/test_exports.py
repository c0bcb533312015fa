"""`amn export`: files other code reads, and what is said of a wrong question."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from amn_dist.interchange import network
from amn_dist.shards.shardset import ShardSet

Say = Callable[..., Any]


def test_masks_as_voc_has_them(finished: Path, amn: Say, tmp_path: Path) -> None:
    """Without --stage those the segmentation network learns from; the same command again goes on."""
    done = amn("export", "masks", finished, "--out", tmp_path / "masks")
    assert (done.code, done.out) == (0, f"{tmp_path / 'masks'}: 4 masks (walk, mask.png)\n")
    walk = ShardSet.open(str(finished / "walk"))
    first = tmp_path / "masks" / f"{walk.entry(0).key}.png"
    with Image.open(first) as picture:
        assert picture.mode == "P" and np.array_equal(np.array(picture), walk.load(0, "mask.png"))
    written = first.stat().st_mtime_ns
    assert amn("export", "masks", finished, "--out", tmp_path / "masks").code == 0
    assert first.stat().st_mtime_ns == written
    seeds = amn("export", "masks", finished, "--stage", "cam_seed", "--out", tmp_path / "seeds")
    assert seeds.code == 0 and "4 masks (cam_seed, seed.png)" in seeds.out


def test_masks_as_coco_has_them(finished: Path, amn: Say, tmp_path: Path) -> None:
    out = tmp_path / "new" / "masks.json"
    done = amn("export", "masks", finished.parent / "train", "--format", "coco", "--out", out)
    tree = json.loads(out.read_text())
    assert (done.code, done.out) == (0, f"{out}: {len(tree['annotations'])} regions in 4 images\n")
    assert len(tree["images"]) == 4 and len(tree["categories"]) == 2 and tree["annotations"]


def test_maps_with_and_without_full_size(finished: Path, amn: Say, tmp_path: Path) -> None:
    done = amn("export", "maps", finished, "--out", tmp_path / "maps")
    assert (done.code, done.out) == (0, f"{tmp_path / 'maps'}: maps of 4 images (cam)\n")
    files = sorted((tmp_path / "maps").glob("*.npy"))
    # What the test reads it has just written itself.
    found = [np.load(file, allow_pickle=True).item() for file in files]
    assert len(files) == 4 and all("high_res" in maps for maps in found if "cam" in maps)
    images = finished.parent / "train"
    lone = amn("export", "maps", finished / "cam", "--images", images, "--no-fine", "--out", tmp_path / "coarse")
    assert lone.code == 0
    assert not any("high_res" in np.load(f, allow_pickle=True).item() for f in (tmp_path / "coarse").glob("*.npy"))


def test_weights_under_our_own_names(finished: Path, amn: Say, tmp_path: Path) -> None:
    out = tmp_path / "new" / "classify.pth"
    done = amn("export", "weights", finished, "classify", "--out", out)
    assert (done.code, done.out) == (0, f"{out}: classify under our own names\n")
    assert torch.load(out, weights_only=True)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("masks", "RUN", "--out", "full"), 2, "full: holds something else (x.txt)"),
        (("masks", "RUN", "--stage", "nix", "--out", "o"), 2, "nix: no stage of method irn"),
        (
            ("masks", "RUN", "--stage", "classify", "--out", "o"),
            1,
            "classify has no finished shards; found cam, cam_seed, walk",
        ),
        (("masks", "RUN", "--stage", "segment", "--out", "o"), 1, "segment has no finished shards"),
        (("masks", "RUN", "--stage", "cam", "--out", "o"), 2, "holds activation.f16, expected labels such as mask.png"),
        (("masks", "RUN/cam", "--field", "activation.f16", "--out", "o"), 2, "amn export maps hands out activations"),
        (("masks", "RUN", "--field", "raw.png", "--out", "o"), 2, "no field raw.png; found mask.png"),
        (("masks", "nowhere", "--out", "o"), 2, "nowhere: not a run"),
        (("masks", "RUN", "--format", "coco", "--out", "full/x.txt/y.json"), 2, "full/x.txt/y.json: cannot be written"),
        (("maps", "RUN", "--stage", "walk", "--out", "o"), 2, "no field activation.f16; found mask.png"),
        (("maps", "DATA", "--out", "o"), 2, "name the image set they lie over with --images"),
        (("weights", "RUN", "walk", "--out", "w.pth"), 2, "walk: is a map and has no weights; expected classify, irn"),
        (
            ("weights", "RUN", "segment", "--out", "w.pth"),
            1,
            "segment: not finished; run `amn run` until segment first",
        ),
        (("network", "RUN", "--out", "w.pth"), 2, "w.pth: found the ending '.pth', expected .onnx or .pt2"),
        (("network", "RUN", "--out", "w.pt2"), 1, "segment/model.safetensors: not there yet; finish the run"),
        (("yolo", "RUN", "--out", "full"), 2, "full: holds something else (x.txt)"),
        (("cvat", "RUN", "--stage", "cam", "--out", "o"), 2, "holds activation.f16, expected labels such as mask.png"),
        (("labelstudio", "RUN", "--out", "full/x.txt/t.json"), 2, "full/x.txt/t.json: cannot be written"),
        (("weights", "RUN", "classify", "--out", "w.bin"), 2, "w.bin: found the ending '.bin', expected .pth"),
        (("weights", "RUN", "classify", "--out", "full/x.txt/w.pth"), 2, "full/x.txt/w.pth: cannot be written"),
    ],
)
def test_a_mistake_is_one_line(
    finished: Path,
    words: tuple[str, ...],
    code: int,
    told: str,
    mistake: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x.txt").write_text("")
    places = {"RUN": str(finished), "DATA": str(finished.parent / "train")}
    named = [word.replace("RUN", places["RUN"]).replace("DATA", places["DATA"]) for word in words]
    assert told in mistake("export", *named, code=code)
    assert not (tmp_path / "o").exists() and not list(tmp_path.glob("w.*"))


def test_onnx_without_its_packages_is_one_line(
    finished: Path, mistake: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "PACKAGES", ("onnx_that_nobody_has",))
    told = mistake("export", "network", finished, "--out", tmp_path / "n.onnx")
    assert "needs the packages onnx_that_nobody_has, which are not installed; install amn-dist[onnx]" in told


def test_labels_for_labelling_tools(finished: Path, amn: Say, tmp_path: Path) -> None:
    for words, told in (
        (("coco", finished, "--out", tmp_path / "coco.json"), "regions in 4 images"),
        (("yolo", finished, "--out", tmp_path / "yolo"), "polygons of 4 images"),
        (("labelstudio", finished, "--prefix", "s3://x/", "--out", tmp_path / "t.json"), "4 tasks; "),
        (("cvat", finished, "--stage", "cam_seed", "--out", tmp_path / "a.xml"), "masks in 4 images"),
    ):
        done = amn("export", *words)
        assert (done.code, done.err) == (0, "") and told in done.out, done
    keys = [entry.key for number in range(2) for entry in ShardSet.open(str(finished / "walk")).shard(number)]
    images = json.loads((tmp_path / "coco.json").read_text())["images"]
    assert [(image["file_name"], image["key"]) for image in images] == [(f"{key}.jpg", key) for key in keys]
    assert [task["data"]["image"] for task in json.loads((tmp_path / "t.json").read_text())] == [
        f"s3://x/{key}.jpg" for key in keys
    ]
    assert sorted(path.stem for path in (tmp_path / "yolo" / "labels").iterdir()) == sorted(keys)
