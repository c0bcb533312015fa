"""Options that commands share, and the mistakes one can make with any of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Say = Callable[..., Any]


@pytest.fixture
def config(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of the finished run, in a folder of its own that is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text((finished / "config.yaml").read_text())
    return tmp_path / "c.yaml"


def test_a_run_lies_under_its_name_unless_told(config: Path, finished: Path, amn: Say) -> None:
    for words, where in (((), "runs/run"), (("--set", "name=other"), "runs/other"), (("--run", "deep/r"), "deep/r")):
        done = amn("run", "c.yaml", "--data", finished.parent, "--until", "cam", "--no-reuse", *words)
        assert done.code == 0, done.err
        assert (config.parent / where / "cam" / "index.json").is_file()


def test_settings_go_over_the_file(config: Path, finished: Path, amn: Say) -> None:
    done = amn("plan", "c.yaml", "--no-measure", "--data", finished.parent, "--set", "irn.epochs=5")
    assert done.code == 0 and "10 steps of 2" in done.out
    done = amn("plan", "c.yaml", "--no-measure", "--data", finished.parent, "--set", "irn={batch: 4}")
    assert done.code == 0 and "3 steps of 4" in done.out
    done = amn("plan", "c.yaml", "--data", finished.parent, "--set", "irn.epochs=3", "--set", "irn.epochs=5")
    assert done.code == 2 and "found irn.epochs=3 and irn.epochs=5, expected irn.epochs once" in done.err


def test_a_stage_alone_as_other_launchers_start_it(config: Path, finished: Path, amn: Say) -> None:
    run = ("c.yaml", "--data", finished.parent, "--run", "r")
    assert amn("fit", run[0], "classify", *run[1:]).code == 0
    assert amn("map", run[0], "cam", *run[1:]).code == 0
    assert (config.parent / "r" / "cam" / "index.json").is_file() and not (config.parent / "r" / "cam_seed").exists()


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_pictures_are_written_where_they_are_asked_for(finished: Path, amn: Say, tmp_path: Path, ending: str) -> None:
    out = tmp_path / "new" / f"a.{ending}"
    done = amn("show", finished, "--out", out)
    assert done.code == 0, done.err
    with Image.open(out) as picture:
        assert done.out == f"{out} ({picture.width}x{picture.height})\n"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("run", "nowhere.yaml"), 2, "nowhere.yaml: cannot be read as a configuration"),
        (("plan", "."), 2, ".: cannot be read as a configuration"),
        (("plan", "c.yaml", "--data", "nowhere"), 2, "nowhere/train: cannot be listed"),
        (("plan", "c.yaml", "--set", "irn.epoch=3"), 2, "unknown key irn.epoch (did you mean epochs?)"),
        (("plan", "c.yaml", "--set", "irn.epochs=0"), 2, "irn.epochs: found 0"),
        (("plan", "c.yaml", "--set", "irn"), 2, "--set irn: expected section.key=value"),
        (("plan", "c.yaml", "--set", "irn.epochs=[1"), 2, "the value is not plain YAML"),
        (("plan", "c.yaml", "--set", "irn.epochs.x=1"), 2, "epochs is a value, not a section"),
        (
            ("run", "c.yaml", "--data", "DATA", "--until", "amn"),
            2,
            "amn: no stage of method irn; stages: classify, cam,",
        ),
        (("run", "c.yaml", "--data", "DATA", "--redo", "nix"), 2, "nix: no stage of method irn"),
        (("fit", "c.yaml", "cam", "--data", "DATA"), 2, "cam is a map, not a fit; use `amn map ... cam`"),
        (("map", "c.yaml", "irn", "--data", "DATA"), 2, "irn is a fit, not a map; use `amn fit ... irn`"),
        (("map", "c.yaml", "score", "--data", "DATA"), 2, "score is a score, not a map; use `amn score RUN`"),
        (("map", "c.yaml", "walk", "--data", "DATA"), 1, "walk: irn is not done in runs/run; run that first"),
        (("score", "nowhere"), 2, "nowhere: not a run"),
        (("report", "nowhere"), 2, "nowhere: not a run"),
        (("show", "nowhere"), 2, "nowhere: not a run"),
        (("show", "RUN", "nokey"), 2, "no sample 'nokey'; keys are in the reports"),
        (("show", "RUN", "--out", "a.nix"), 2, "a.nix: found the ending .nix, expected one such as .png or .jpg"),
        (("show", "RUN", "--out", "c.yaml/a.png"), 2, "c.yaml/a.png: cannot be written"),
        (("report", "RUN", "--out", "c.yaml/r.html"), 1, "c.yaml/r.html: cannot be written"),
        (("predict", "nowhere", "x.jpg"), 2, "nowhere: not a run"),
        (("predict", "RUN", "x.jpg"), 1, "finish the run with `amn run` first"),
        (("verify", "nowhere"), 2, "nowhere: neither a tar nor a folder"),
    ],
)
def test_a_mistake_is_one_line(
    config: Path, finished: Path, words: tuple[str, ...], code: int, told: str, mistake: Callable[..., str]
) -> None:
    places = {"DATA": str(finished.parent), "RUN": str(finished)}
    assert told in mistake(*(places.get(word, word) for word in words), code=code)
    assert sorted(path.name for path in config.parent.iterdir()) in (["c.yaml"], ["c.yaml", "runs"])
