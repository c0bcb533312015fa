"""Scores by every published protocol, from the command line, out of counts that are made once."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amn_dist.config import Config, dump_config
from amn_dist.ops.metrics.counts import label_counts, mean_iou, protocol_iou
from amn_dist.ops.resize import upsample
from amn_dist.report.page import write_report
from amn_dist.runs.run import write_json, write_text
from amn_dist.shards.format import encode
from amn_dist.shards.writer import write_index, write_shard
from amn_dist.stages.score import PROTOCOLS
from benchmarks.seeds import protocols

CLASSES = ("background", *(f"c{i}" for i in range(1, 21)))
SIZE = (24, 32)
Rows = list[dict[str, Any]]


def write_set(folder: Path, over: str, rows: Rows) -> None:
    """One shard over the images of a set."""
    encoded = []
    for number, row in enumerate(rows):
        fields = {name: v if isinstance(v, bytes) else encode(name, v) for name, v in row.items()}
        encoded.append((f"{over}{number}", SIZE, fields))
    write_index(folder, kind=folder.name, classes=CLASSES, reports=[write_shard(folder, 0, encoded)])


def image(tags: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(file, "PNG")
    return {"tags": tags, "gt.png": truth, "png": file.getvalue()}


@pytest.fixture
def case(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "eval_0.npz") as found:
        return {name: found[name] for name in found.files}


@pytest.fixture
def run(case: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """The golden masks as pseudo-masks of a training set and as predictions of a validation set, and some maps."""
    tags = np.zeros(20, np.uint8)
    tags[case["in_cam_keys"]] = 1
    random = np.random.default_rng(0)
    images = [image(tags, truth) for truth in case["in_gt"]]
    folder = tmp_path / "run"
    for over in ("train", "val"):
        write_set(tmp_path / over, over, images)
    write_set(
        folder / "cam", "train", [{"activation.f16": random.random((3, 6, 8)).astype(np.float16)} for _ in images]
    )
    write_set(folder / "walk", "train", [{"mask.png": mask} for mask in case["in_pred"]])
    write_set(folder / "predict", "val", [{"raw.png": mask} for mask in case["in_pred"]])
    config = {"name": "x", "method": "irn", "predict": {"crf": "off"}, "farm": {"name": "local"}}
    write_text(folder / "config.yaml", dump_config(Config.model_validate(config)))
    write_json(folder / "data.json", {"data": str(tmp_path)})
    return folder


def scores(run: Path) -> Any:
    return json.loads((run / "score" / "score.json").read_text())["sets"]


def expected(case: dict[str, np.ndarray], protocol: str) -> tuple[np.ndarray, float]:
    """IoU by class and mIoU that the published code of a protocol computed."""
    ious = case[f"out_{protocol}_iou"].astype(np.float64)
    return np.append(ious, [np.nan] * 21)[:21], float(case[f"out_{protocol}_miou"])


def close(protocol: str) -> float:
    return 1e-6 if protocol == "icd" else 1e-9


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_is_scored_by_the_protocol_it_names(
    run: Path, case: dict[str, np.ndarray], amn: Callable[..., Any], protocol: str
) -> None:
    done = amn("score", run, "--set", f"score.protocol={protocol}")
    ious, miou = expected(case, protocol)
    assert done.code == 0, done.err
    title = {"voc": "VOC", "coco": "COCO", "deeplab": "DeepLab", "icd": "ICD"}[protocol]
    lines = [line.split() for line in done.out.splitlines()]
    assert ["train", "│", "pseudo-mask", "│", title, "│", f"{100 * miou:.1f}"] in [line[1:8] for line in lines]
    said = " ".join(done.out.split())
    assert f"IoU by class, train, {title} protocol" in said and f"{title} protocol: " in said
    for over, name in (("train", "walk"), ("val", "predict_raw")):
        row = scores(run)[over]["rows"][name]
        assert row["protocol"] == scores(run)[over]["protocol"] == protocol
        assert row["miou"] == pytest.approx(miou, abs=close(protocol))
        np.testing.assert_allclose(np.array(row["iou"], float), ious, atol=close(protocol))
        for other in PROTOCOLS:
            assert row["protocols"][other] == pytest.approx(expected(case, other)[1], abs=close(other))
    assert protocols([run]) == {
        f"{over} {name}": protocol for over, found in scores(run).items() for name in found["rows"]
    }
    write_report([run], run / "report.html", images=0)
    page = (run / "report.html").read_text()
    assert (
        f"train, {title} protocol" in page
        and f"<dt>{title}</dt>" in page
        and page.count("<dt>VOC</dt>") == (title == "VOC")
    )


def test_masks_and_predictions_may_follow_different_protocols(run: Path, case: dict[str, np.ndarray], amn: Any) -> None:
    assert amn("score", run, "--set", "score.protocol=coco", "--set", "score.val_protocol=deeplab").code == 0
    found = scores(run)
    assert found["train"]["rows"]["walk"]["miou"] == pytest.approx(float(case["out_coco_miou"]), abs=1e-9)
    assert found["val"]["rows"]["predict_raw"]["miou"] == pytest.approx(float(case["out_deeplab_miou"]), abs=1e-9)
    write_report([run], run / "report.html", images=0)
    assert all(f"<dt>{title}</dt>" in (run / "report.html").read_text() for title in ("COCO", "DeepLab"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_activations_are_scored_by_the_protocol_at_every_threshold(
    run: Path, case: dict[str, np.ndarray], amn: Any, protocol: Any
) -> None:
    assert amn("score", run, "--set", f"score.protocol={protocol}", "--set", "score.threshold=0.4").code == 0
    row = scores(run)["train"]["rows"]["cam"]
    random = np.random.default_rng(0)
    maps = [upsample(random.random((3, 6, 8)).astype(np.float16), SIZE) for _ in case["in_gt"]]
    ids = np.array([0, *(case["in_cam_keys"] + 1)])
    for threshold in (0.1, 0.4, 0.8):
        counts = sum(
            label_counts(ids[np.concatenate([np.full((1, *SIZE), np.float32(threshold)), found]).argmax(0)], truth, 21)
            for found, truth in zip(maps, case["in_gt"], strict=True)
        )
        ious = protocol_iou(np.asarray(counts), protocol)
        at = row["thresholds"].index(threshold)
        assert row["miou"][at] == pytest.approx(mean_iou(ious), abs=1e-12)
        np.testing.assert_allclose(np.array(row["iou"][at], float), ious[:21], atol=1e-12)
    assert row["protocol"] == protocol and row["default_miou"] == row["miou"][39]
    assert row["protocols"][protocol]["best_miou"] == row["best_miou"] == max(row["miou"])
    assert row["images"]["oracle_miou"] >= row["best_miou"] - 0.1


def test_another_protocol_needs_no_other_look_at_the_images(run: Path, case: dict[str, np.ndarray], amn: Any) -> None:
    assert amn("score", run).code == 0
    first = (run / "score" / "score.json").read_bytes()
    counted = (run / "score" / "counts.npz").stat().st_mtime_ns
    for tar in run.parent.glob("**/*.tar"):
        tar.write_bytes(bytes(tar.stat().st_size))
    assert amn("score", run, "--set", "score.protocol=icd").code == 0
    assert scores(run)["train"]["rows"]["walk"]["miou"] == pytest.approx(float(case["out_icd_miou"]), abs=1e-6)
    assert "protocol: icd" in (run / "config.yaml").read_text()
    assert amn("score", run, "--set", "score.protocol=voc").code == 0
    assert (run / "score" / "score.json").read_bytes() == first
    written = (run / "score" / "score.json").stat().st_mtime_ns
    assert amn("score", run).code == 0
    assert (run / "score" / "score.json").stat().st_mtime_ns == written
    assert (run / "score" / "counts.npz").stat().st_mtime_ns == counted


def test_what_is_counted_again(run: Path, case: dict[str, np.ndarray], amn: Any) -> None:
    """Counts that are damaged; other labels; another truth of the validation set alone."""
    assert amn("score", run).code == 0
    (run / "score" / "counts.npz").write_bytes(b"PK")
    assert amn("score", run).code == 0
    assert np.load(run / "score" / "counts.npz")["train/images"].tolist() == [3]
    write_set(run / "walk", "train", [{"mask.png": truth} for truth in case["in_gt"]])
    assert amn("score", run).code == 0
    assert scores(run)["train"]["rows"]["walk"]["miou"] == 1
    before = scores(run)["val"]["rows"]["predict_raw"]["miou"]
    write_set(run.parent / "val", "val", [image(np.ones(20, np.uint8), mask) for mask in case["in_pred"]])
    assert amn("score", run).code == 0
    assert before < scores(run)["val"]["rows"]["predict_raw"]["miou"] == 1


def test_the_training_images_of_a_list_alone_are_scored(run: Path, case: dict[str, np.ndarray], amn: Any) -> None:
    """As published: masks of train among those of train_aug."""
    chosen = run.parent / "train.txt"
    chosen.write_text("train2\n\n of another set\r\ntrain0")
    done = amn("score", run, "--set", "score.images=train.txt")
    assert done.code == 0, done.err
    assert "train: scored on 2 images, those of train.txt" in done.out
    found = scores(run)
    assert (found["train"]["images"], found["val"]["images"]) == (2, 3) and "list" not in found["val"]
    counts = sum(label_counts(case["in_pred"][n], case["in_gt"][n], 21) for n in (0, 2))
    assert found["train"]["rows"]["walk"]["miou"] == mean_iou(protocol_iou(np.asarray(counts), "voc"))
    with np.load(run / "score" / "counts.npz") as sums:
        assert sums["train/cam/histogram"].sum() > 0 and sums["val/images"] == [3]
    write_report([run], run / "report.html", images=0)
    assert "train: scored on 2 images, those of train.txt." in (run / "report.html").read_text()
    counted = (run / "score" / "counts.npz").stat().st_mtime_ns
    chosen.write_text("train0\ntrain2\nof another set\n")
    assert amn("score", run).code == 0 and (run / "score" / "counts.npz").stat().st_mtime_ns == counted
    chosen.write_text("train1")
    assert amn("score", run).code == 0 and scores(run)["train"]["images"] == 1
    assert amn("score", run, "--set", "score.images=null").code == 0
    assert scores(run)["train"]["images"] == 3 and "list" not in scores(run)["train"]


def test_scores_on_a_list_outlive_the_data(run: Path, amn: Any) -> None:
    (run.parent / "train.txt").write_text("train1")
    assert amn("score", run, "--set", "score.images=train.txt").code == 0
    (run.parent / "train.txt").rename(run.parent / "gone.txt")
    (run.parent / "train").rename(run.parent / "gone")
    done = amn("score", run, "--set", "score.protocol=icd")
    assert done.code == 0 and "as counted before" in done.err and scores(run)["train"]["images"] == 1
    for other in ("gone.txt", "null"):
        (run.parent / "gone.txt").write_text("train2")
        refused = amn("score", run, "--set", f"score.images={other}")
        assert refused.code != 0 and "train" in refused.err
    assert scores(run)["train"]["images"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"2007_000032 -1\n", "found 2007_000032 -1, and none of 1 lines is an image of"),
    ],
)
def test_lists_that_name_no_image_are_refused(run: Path, amn: Any, content: bytes | None, said: str) -> None:
    assert amn("score", run).code == 0
    before = (run / "score" / "score.json").read_bytes()
    if content is not None:
        (run.parent / "list.txt").write_bytes(content)
    refused = amn("score", run, "--set", "score.images=list.txt")
    assert refused.code == 2 and "score.images: " in refused.err and said in refused.err
    assert (run / "score" / "score.json").read_bytes() == before
    assert amn("score", run).code == 0  # the run has kept its settings


def test_a_truth_that_says_nothing_is_named(run: Path, case: dict[str, np.ndarray], amn: Any) -> None:
    void = np.full(SIZE, 255, np.uint8)
    write_set(
        run.parent / "train", "train", [image(np.isin(np.arange(20), case["in_cam_keys"]).astype(np.uint8), void)] * 3
    )
    done = amn("score", run)
    told = "train: its truth is 255 everywhere, nothing can be compared with it"
    assert done.code == 0 and f"missing: {told}" in done.out
    assert scores(run)["train"]["rows"]["walk"]["miou"] is None
    write_report([run], run / "report.html", images=0)
    page = (run / "report.html").read_text()
    assert told in page and "mIoU at every threshold" not in page and "CAM (run), train" in page


def test_maps_of_other_tags_are_named(run: Path, case: dict[str, np.ndarray], amn: Any) -> None:
    write_set(run.parent / "train", "train", [image(np.ones(20, np.uint8), truth) for truth in case["in_gt"]])
    done = amn("score", run)
    assert done.code == 1 and "train0: found 3 maps of cam, expected 20 for its tags; --redo cam" in done.err


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("score.protocol=pascal", ["score.protocol", "pascal", "'voc', 'coco', 'deeplab' or 'icd'"]),
        ("walk.radius=3", ["walk.radius=3", "expected a setting of scores, such as score.protocol=coco"]),
        ("score.protokoll=voc", ["score.protokoll", "did you mean protocol?"]),
    ],
)
def test_other_settings_are_refused_and_nothing_is_changed(run: Path, amn: Any, setting: str, words: list[str]) -> None:
    before = (run / "config.yaml").read_bytes()
    done = amn("score", run, "--set", setting)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and all(word in done.err for word in words), done.err
    assert (run / "config.yaml").read_bytes() == before and not (run / "score").exists()
