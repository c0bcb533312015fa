"""Maps of another method through the rest of the pipeline; and once around: out of a run, into dictionaries, back."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from amn_dist.config import Config
from amn_dist.errors import ConfigError
from amn_dist.interchange.maps import export_maps
from amn_dist.interchange.selection import select_maps
from amn_dist.interchange.weights import convert_weights
from amn_dist.models.backbones.backbone import build_backbone
from amn_dist.models.cam import CamNet
from amn_dist.records import grid_size
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run, read_json
from amn_dist.shards.format import encode
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import write_index, write_shard
from amn_dist.stages.classify import image_cam
from data_shards.maps import import_maps
from data_shards.synthetic import pack_synthetic
from tests.golden.make_weights import as_torch, make_weights
from tests.tiny import FIT, HERE

LEARNING = {**FIT, "lr": 1e-3, "lr_head": 1e-3, "batch": 4, "crop": 64}
CRF = {"crf": "pydensecrf"}
TREE = {
    "name": "x",
    "method": "amn",
    "data": {"val": None},
    "classify": {**LEARNING, "epochs": 4, "long_side": [72, 112]},
    "cam": {"scales": [1.0]},
    "cam_seed": CRF,
    "refine_seed": CRF,
    "amn": LEARNING,
    "amn_map": {"scales": [1.0]},
    "amn_seed": CRF,
    "irn": LEARNING,
    "walk": {"pad": None, "steps": 16},
    **HERE,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a run of method amn up to its maps, and those maps once around."""
    root = tmp_path_factory.mktemp("refine")
    pack_synthetic(root / "data" / "train", images=8, seed=0, classes=2, shard_size=3)
    line(root, "amn").execute(until="cam_seed")
    export_maps(select_maps(str(root / "runs" / "amn")), root / "npy")
    import_maps(root / "npy", str(root / "data" / "train"), root / "data" / "maps")
    return root


def line(root: Path, name: str, said: io.StringIO | None = None, **more: object) -> Pipeline:
    config = Config.model_validate({**TREE, "name": name, **more})
    return Pipeline(config, Run(root / "runs" / name), root / "data", console=Console(file=said or io.StringIO()))


def refine(root: Path, name: str, maps: Path | str, said: io.StringIO | None = None) -> Pipeline:
    return line(root, name, said, method="refine", refine={"maps": str(maps)})


def digests(folder: Path) -> dict[str, str]:
    found = [*folder.glob("*/index.json"), *folder.glob("*/done.json")]
    return {last.parent.name: json.loads(last.read_text())["digest"] for last in found}


def test_maps_once_around_lead_to_the_same_masks(root: Path) -> None:
    direct = refine(root, "direct", root / "runs" / "amn" / "cam")
    direct.execute(until="walk")
    direct.execute(only="score")
    cam, given = (ShardSet.open(str(root / "runs" / name)) for name in ("amn/cam", "direct/refine"))
    assert [shard.sha256 for shard in given.index.shards] == [shard.sha256 for shard in cam.index.shards]
    line(root, "amn").execute(only="score")
    rows = [
        read_json(root / "runs" / name / "score" / "score.json")["sets"]["train"]["rows"] for name in ("direct", "amn")
    ]
    assert rows[0]["refine"] == rows[1]["cam"] and set(rows[0]) == {
        "refine",
        "refine_seed",
        "amn_map",
        "amn_seed",
        "walk",
    }
    around = refine(root, "around", "maps", said := io.StringIO())
    around.execute(until="walk")
    wanted = digests(root / "runs" / "direct")
    assert digests(root / "runs" / "around") == wanted and {"refine", "amn", "walk"} < wanted.keys()
    taken = [name for name in wanted if f"{name}: taken from run direct" in said.getvalue()]
    assert sorted(taken) == sorted(set(wanted) - {"refine", "refine_seed"})


def test_the_content_of_the_maps_is_the_origin_not_their_place(root: Path, tmp_path: Path) -> None:
    run = refine(root, "moved", "maps")
    run.execute(until="refine_seed")
    (root / "data" / "maps").rename(tmp_path / "elsewhere")
    try:
        refine(root, "moved", tmp_path / "elsewhere").execute(until="refine_seed")
        images, other = ShardSet.open(str(root / "data" / "train")), tmp_path / "other"
        given = ShardSet.open(str(tmp_path / "elsewhere"))
        rewrite(images, given, other, lambda maps: maps / 2)
        with pytest.raises(ConfigError, match=r"refine: made with maps set .*--redo refine"):
            refine(root, "moved", other).execute(until="refine_seed")
    finally:
        (tmp_path / "elsewhere").rename(root / "data" / "maps")


def rewrite(images: ShardSet, given: ShardSet, out: Path, change: object) -> None:
    """Maps changed, shard by shard."""
    reports = []
    for number in range(len(images.shard_sizes)):
        rows = [
            (
                e.key,
                (e.height, e.width),
                {"activation.f16": encode("activation.f16", change(given.load(e.ordinal, "activation.f16")))},
            )  # type: ignore[operator]
            for e in images.shard(number)
        ]
        reports.append(write_shard(out, number, rows))
    write_index(out, kind="activation", classes=images.classes, reports=reports)


def test_an_image_without_a_map_is_undecided_and_has_a_mask_all_the_same(root: Path, tmp_path: Path) -> None:
    images = ShardSet.open(str(root / "data" / "train"))
    ordinal = next(n for n in range(len(images)) if images.load(n, "tags").any())
    for path in (root / "npy").iterdir():
        if path.stem != images.entry(ordinal).key:
            (tmp_path / "npy").mkdir(exist_ok=True)
            (tmp_path / "npy" / path.name).write_bytes(path.read_bytes())
    import_maps(tmp_path / "npy", images.url, tmp_path / "maps", skip_bad=True)
    run = refine(root, "gap", tmp_path / "maps")
    run.execute(until="refine_seed")
    assert (run.open("refine_seed").load(ordinal, "seed.png") == 255).all()
    assert not run.open("refine").load(ordinal, "activation.f16").any()
    assert run.open("refine").load(ordinal, "activation.f16").shape[0] == images.load(ordinal, "tags").sum()


@pytest.mark.parametrize(
    ("maps", "told"),
    [("train", r"refine\.maps: .*expected activation\.f16"), ("nowhere", "nowhere: cannot be listed")],
)
def test_a_set_that_is_none_of_maps_is_refused(root: Path, maps: str, told: str) -> None:
    with pytest.raises(Exception, match=told):
        refine(root, "refused", maps).execute(until="refine")


def test_maps_that_do_not_lie_over_the_images_are_refused(root: Path, tmp_path: Path) -> None:
    pack_synthetic(tmp_path / "fewer", images=5, seed=0, classes=2, shard_size=3)
    with pytest.raises(Exception, match="do not lie over"):
        line(
            root,
            "fewer",
            method="refine",
            refine={"maps": "maps"},
            data={"train": str(tmp_path / "fewer"), "val": None},
        ).execute(until="refine")


def test_method_refine_asks_for_its_maps() -> None:
    with pytest.raises(ValueError, match=r"name their shard set in refine\.maps"):
        Config.model_validate({"name": "x", "method": "refine"})


def test_a_published_checkpoint_maps_and_its_maps_come_back(golden: Path, root: Path, tmp_path: Path) -> None:
    """Weights in published form to ours, to maps, out as published dictionaries, and in again: not a bit is lost."""
    tensors = as_torch(make_weights(golden / "keys" / "amn_cam_net_voc.json"))
    torch.save(tensors, tmp_path / "res50_cam.pth.pth")
    convert_weights(tmp_path / "res50_cam.pth.pth", "cam", tmp_path / "cam.safetensors")
    section = Config.model_validate({"name": "x", "classify": {"backbone": {"weights": None}}}).classify.backbone
    network = CamNet(build_backbone(section), 21)
    network.load_state_dict(load_file(tmp_path / "cam.safetensors"))
    with np.load(golden / "cam_forward_voc_0.npz") as found:
        image, label, keys, cam = (found[name] for name in ("in_image", "in_label", "out_keys", "out_cam"))
    classes, coarse, _ = image_cam(network.eval(), image, label)
    assert (classes - 1).tolist() == keys.tolist() and np.abs(coarse - cam).max() < 1e-4
    size = image.shape[:2]
    assert coarse.shape[1:] == grid_size(*size)
    rows = {"tags": encode("tags", label.astype(np.uint8))}
    names = ("background", *map(str, range(1, 21)))
    for folder, kind, fields in (
        ("images", "images", rows),
        ("cam", "cam", {"activation.f16": encode("activation.f16", coarse.astype(np.float16))}),
    ):
        write_index(
            tmp_path / folder,
            kind=kind,
            classes=names,
            reports=[write_shard(tmp_path / folder, 0, [("a", size, fields)])],
        )
    export_maps(select_maps(str(tmp_path / "cam"), images=str(tmp_path / "images")), tmp_path / "npy")
    import_maps(tmp_path / "npy", tmp_path / "images", tmp_path / "back")
    once, again = (ShardSet.open(str(tmp_path / name)) for name in ("cam", "back"))
    assert again.index.shards[0].sha256 == once.index.shards[0].sha256
