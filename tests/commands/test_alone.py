"""A run whose data is gone or was moved: what needs nothing but the run works, the rest says what it needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amn_dist.runs.pipeline import reopen
from amn_dist.storage.paths import AnyPath

Say = Callable[..., Any]


@pytest.fixture
def alone(finished: Path, tmp_path: Path) -> Path:
    """A scored run, its data moved to `elsewhere` beside it."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(finished.parent / "train", tmp_path / "data" / "train")
    (tmp_path / "run" / "data.json").write_text(json.dumps({"data": str(tmp_path / "data")}))
    reopen(tmp_path / "run").execute(only="score")
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    return tmp_path / "run"


def test_what_a_run_holds_needs_no_data(alone: Path, amn: Say, tmp_path: Path) -> None:
    for words in (
        ("export", "masks", alone, "--out", tmp_path / "masks"),
        ("export", "masks", alone, "--format", "coco", "--out", tmp_path / "masks.json"),
        ("export", "weights", alone, "classify", "--out", tmp_path / "w.pth"),
        ("report", alone, "--out", tmp_path / "r.html"),
    ):
        done = amn(*words)
        assert done.code == 0, done
    assert "--data says where it lies now" in (tmp_path / "r.html").read_text()


def test_scores_come_from_what_was_counted(alone: Path, amn: Say, tmp_path: Path) -> None:
    before = json.loads((alone / "score" / "score.json").read_text())
    done = amn("score", alone)
    assert done.code == 0 and "as counted before" in done.err and "CAM seed" in done.out, done
    assert json.loads((alone / "score" / "score.json").read_text()) == before
    assert amn("score", alone, "--set", "score.protocol=coco").code == 0
    after = json.loads((alone / "score" / "score.json").read_text())
    assert after["sets"]["train"]["protocol"] == "coco" and after["missing"] == before["missing"]
    (alone / "score" / "counts.npz").unlink()
    done = amn("score", alone)
    assert done.code == 2 and "--data says where it lies now" in done.err
    done = amn("score", alone, "--data", tmp_path / "elsewhere")
    assert done.code == 0 and (alone / "score" / "counts.npz").exists()
    assert amn("show", alone, "--out", tmp_path / "s.png").code == 0, "the new place is remembered"


def test_photographs_are_found_where_they_lie_now(alone: Path, amn: Say, mistake: Say, tmp_path: Path) -> None:
    now = ("--data", tmp_path / "elsewhere")
    for words in (("show", alone, "--out", tmp_path / "s.png"), ("export", "maps", alone, "--out", tmp_path / "maps")):
        assert "--data says where it lies now" in mistake(*words)
        assert amn(*words, *now).code == 0
    assert amn("report", alone, "--out", tmp_path / "r.html", *now).code == 0
    assert "<figure" in (tmp_path / "r.html").read_text()


def test_a_set_of_an_absolute_path_is_found_where_it_lies_now(
    alone: Path, amn: Say, mistake: Say, tmp_path: Path
) -> None:
    path = alone / "config.yaml"
    path.write_text(path.read_text().replace("train: train\n", f"train: {tmp_path / 'data' / 'train'}\n"))
    assert str(tmp_path) in path.read_text()
    show = ("show", alone, "--out", tmp_path / "s.png")
    assert "--data says where it lies now" in mistake(*show)
    assert amn(*show, "--data", tmp_path / "elsewhere").code == 0
    assert f"{tmp_path / 'none' / 'train'}: cannot be listed" in mistake(*show, "--data", tmp_path / "none")


@pytest.mark.parametrize("kept", ["classes.json", "maps"])
def test_class_names_are_those_of_the_run(alone: AnyPath, kept: str) -> None:
    if kept == "maps":
        (alone / "classes.json").unlink()  # as in runs of older versions
    assert reopen(alone).classes == ("background", "disc", "box")
