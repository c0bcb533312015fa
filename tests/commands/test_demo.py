"""`amn demo`, as small as it goes; the whole of it is slow."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from amn_dist.runs.run import read_json

SMALL = (
    *(f"{stage}.epochs=1" for stage in ("classify", "amn", "irn", "segment")),
    *(f"{stage}.crop=48" for stage in ("classify", "amn", "irn", "segment")),
    "cam.scales=[0.5]",
    "amn_map.scales=[0.5]",
    "predict.crf=off",
    "walk.steps=4",
    "farm.name=local",
    "engine.name=torch",
    "loader.name=torchvision",
)


def words(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def check(folder: Path, out: str) -> None:
    """What a demo leaves and says."""
    for method in ("amn", "irn"):
        scores = read_json(folder / method / "score" / "score.json")
        assert scores["missing"] == [] and scores["sets"].keys() == {"train", "val"}
        with Image.open(folder / f"{method}.png") as picture:
            assert picture.width > 500 and picture.height > 8 * 160
    assert (folder / "report.html").stat().st_size > 100_000
    shown = [row for row in out.splitlines() if "(train)" in row or "(val)" in row]
    assert {"CAM (train)", "AMN (train)", "pseudo-mask (train)", "prediction (val)"} <= {
        row.strip("│ ").split("│")[0].strip() for row in shown
    }
    assert re.search(r"AMN's map against CAM's at threshold 0\.25: -?\d+\.\d points of mIoU", out)
    assert f"report: {folder}/report.html" in out


def test_a_tiny_demo_ends_with_table_pictures_and_report(amn: Callable[..., Any], tmp_path: Path) -> None:
    done = amn("demo", "--run", tmp_path / "d", "--images", 32, *words(*SMALL))
    assert done.code == 0, done.err
    check(tmp_path / "d", done.out)
    assert "irn: taken from run" not in done.out and "cam: taken from run amn" in done.out
    again = amn("demo", "--run", tmp_path / "d", "--images", 32, *words(*SMALL))
    assert again.code == 0 and "done in" not in again.out.replace(f"{tmp_path}", "")
    assert "finished set of other inputs" in amn("demo", "--run", tmp_path / "d", "--images", 33, *words(*SMALL)).err


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("method=icd", "--set method=icd: the demo runs amn and irn"),
        ("name=x", "--set name=x: the demo runs amn and irn"),
        ("amn.epoch=1", "unknown key amn.epoch"),
        ("amn", "--set amn: expected section.key=value"),
    ],
)
def test_a_mistake_is_told_before_anything_is_drawn(
    amn: Callable[..., Any], tmp_path: Path, setting: str, told: str
) -> None:
    done = amn("demo", "--run", tmp_path / "d", *words(setting))
    assert done.code == 2 and told in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "d").exists()


def test_too_few_scenes_are_refused(amn: Callable[..., Any], tmp_path: Path) -> None:
    done = amn("demo", "--run", tmp_path / "d", "--images", 3)
    assert done.code == 2 and "--images" in done.err and not (tmp_path / "d").exists()


@pytest.mark.slow
def test_the_whole_demo(amn: Callable[..., Any], tmp_path: Path) -> None:
    """AMN's map is better than CAM's at the common threshold, as the README says."""
    done = amn("demo", "--run", tmp_path / "d")
    assert done.code == 0, done.err
    check(tmp_path / "d", done.out)
    rows = read_json(tmp_path / "d" / "amn" / "score" / "score.json")["sets"]["train"]["rows"]
    assert rows["amn_map"]["default_miou"] > rows["cam"]["default_miou"] > 0.3
