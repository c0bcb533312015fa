"""`amn plan`: what is done, what is next, what it costs, as a person reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from amn_dist.commands.estimates.records import measured, rated
from amn_dist.runs.run import write_json
from amn_dist.telemetry import METRICS
from data_shards.synthetic import pack_synthetic

Say = Callable[..., Any]
FIT = "{backbone: {name: small, stride: 8, weights: null, frozen_taps: 0}, batch: 4, epochs: 3, crop: 48}"
CONFIG = f"""
name: x
method: irn
data: {{train: train, val: null}}
classify: {FIT}
irn: {FIT}
segment: {{backbone: {{name: small, stride: 8, weights: null, frozen_taps: 0}}, batch: 4, steps: 20}}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten drawn scenes in four shards, and a configuration; the current folder."""
    monkeypatch.chdir(tmp_path)
    pack_synthetic(tmp_path / "train", images=10, seed=0, classes=2, size=(48, 64), shard_size=3)
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


def rows(done: Any, code: int = 0) -> dict[str, list[str]]:
    """The cells of every stage: verb, state, reads, work, time."""
    assert done.code == code, done.err
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.out.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in cells}


def metrics(folder: Path, *records: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_a_run_that_has_not_begun(place: Path, amn: Say) -> None:
    done = amn("plan", "c.yaml", "--no-measure")
    assert rows(done) == {
        "classify": ["fit", "open", "", "6 steps of 4", "not measured yet"],
        "cam": ["map", "open", "classify", "10 images", "not measured yet"],
        "cam_seed": ["map", "open", "cam", "10 images", "with cam"],
        "irn": ["fit", "open", "cam_seed", "6 steps of 4", "not measured yet"],
        "walk": ["map", "open", "irn, cam", "10 images", "not measured yet"],
        "segment": ["fit", "open", "walk", "20 steps of 4", "not measured yet"],
        "score": ["score", "open", "", "all truth", "not measured yet"],
    }
    assert "x: irn in runs/x" in done.out and not (place / "runs").exists()


def test_what_is_done_and_begun(place: Path, amn: Say) -> None:
    run = place / "runs" / "x"
    metrics(run / "classify", {"step": 3, "images_per_s": 9.0}, {"done": True, "seconds": 12.4})
    write_json(run / "classify" / "done.json", {"digest": "d"})
    write_json(run / "cam" / "origin.json", {"settings": {}, "inputs": {}, "code": ""})
    for number in (0, 2):
        for ending in ("tar", "json"):
            shutil.copy(place / "train" / f"{number:06d}.{ending}", run / "cam")
    found = rows(amn("plan", "c.yaml", "--no-measure"))
    assert found["classify"][1:] == ["done", "", "6 steps of 4", "12 s"]
    assert found["cam"][1:] == ["2/4 shards", "classify", "10 images", "not measured yet"]


def test_damaged_metrics_count_for_nothing(place: Path, amn: Say) -> None:
    metrics(place / "runs" / "x" / "classify", '{"done": true, "seconds": 3', {"done": True, "seconds": 7})
    write_json(place / "runs" / "x" / "classify" / "done.json", {"digest": "d"})
    metrics(place / "runs" / "other" / "cam", "nonsense", {"images_per_s": 0.0})
    found = rows(amn("plan", "c.yaml", "--no-measure"))
    assert found["classify"][-1] == "7 s" and found["cam"][-1] == "not measured yet"


def test_a_set_smaller_than_a_batch_is_told_before_it_is_tried(place: Path, amn: Say) -> None:
    done = amn("plan", "c.yaml", "--no-measure", "--set", "irn.batch=16", "--set", "segment.batch=16")
    found = rows(done, code=2)
    assert found["irn"][3] == found["segment"][3] == "none: 10 images, a batch of 16"
    assert "error: irn.batch 16: the training set has 10 images" in done.err


def test_without_truth_there_is_nothing_to_score(place: Path, amn: Say) -> None:
    (place / "photos").mkdir()
    for name in "abcd":
        Image.new("RGB", (64, 48)).save(place / "photos" / f"{name}.png")
    (place / "tags.csv").write_text("file,labels\n" + "".join(f"{name}.png,disc\n" for name in "abcd"))
    assert amn("pack", "folder", "photos", "--labels", "tags.csv", "--out", "bare").code == 0
    done = amn("plan", "c.yaml", "--no-measure", "--set", "data.train=bare")
    assert rows(done)["score"][3:] == ["no truth", ""] and "score" not in done.out.splitlines()[-1]


@pytest.mark.parametrize("method", ["amn", "icd", "icd_amn", "refine"])
def test_every_method_has_a_plan(place: Path, amn: Say, method: str) -> None:
    asked = (f"method={method}", "refine.maps=maps", "amn.batch=5", "discriminate.batch=5")
    done = amn("plan", "c.yaml", "--no-measure", *(word for setting in asked for word in ("--set", setting)))
    found = rows(done, code=2 if method == "refine" else 0)
    assert ("error: refine.maps: " in done.err) == (method == "refine")  # there are none
    followers = [name for name, cells in found.items() if cells[-1].startswith("with ")]
    assert followers and all(name.endswith("_seed") for name in followers) and list(found)[-1] == "score"
    assert method == "icd" or found["amn"][3] == "10 steps of 5"


SOUND = '{"step": 1, "images_per_s": 8.0}\n{"done": true, "seconds": 12.5}\n'


@pytest.mark.parametrize(
    "line",
    ["[1]", "7", "[" * 100_000, '{"done": true, "seconds": "soon"}', '{"done": true, "seconds": true}', "\x1b[2J",
     '{"images_per_s": NaN}', '{"images_per_s": 0}', '{"images_per_s": [8]}', '{"images_per_s": 1, "images_per_s": 2}'],
)  # fmt: skip
def test_lines_that_measure_nothing_are_left_out(tmp_path: Path, line: str) -> None:
    (tmp_path / METRICS).write_text(SOUND + line + "\n")
    assert (measured(tmp_path), rated(tmp_path)) == (12.5, 8.0)


def test_without_records_nothing_is_measured(tmp_path: Path) -> None:
    assert (measured(tmp_path), rated(tmp_path)) == (None, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_begun(place: Path, amn: Say) -> None:
    for command in ("plan", "run"):
        done = amn(command, "c.yaml", "--set", "cam_seed.crf=gpu")
        assert done.code == 2 and "cam_seed.crf: found gpu, but this machine has none" in done.err
    assert not (place / "runs" / "x" / "classify").exists()
