"""`amn run`, `fit` and `map` over work of other settings or code: asked on a terminal, refused without one, kept."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amn_dist.config import load_config
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from data_shards.synthetic import pack_synthetic

CONFIG = """
name: tiny
method: irn
data: {val: null}
classify: {backbone: {name: small, stride: 8, weights: null, frozen_taps: 0}, optimiser: adam, lr: 1.0e-3,
           lr_head: 1.0e-3, batch: 8, steps: 4, crop: 48, long_side: [48, 64], checkpoint_every: 2, log_every: 1}
cam: {scales: [1.0]}
engine: {name: torch}
farm: {name: local}
loader: {name: torchvision}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, and a run whose Fit has its checkpoints but not its end, and whose seed has one of two shards."""
    root = tmp_path_factory.mktemp("data")
    pack_synthetic(root / "train", images=16, seed=0, classes=2, shard_size=8, size=(48, 64))
    (root / "tiny.yaml").write_text(CONFIG)
    Pipeline(load_config(root / "tiny.yaml"), Run(root / "done"), root).execute(until="cam_seed")
    return root


@pytest.fixture
def trained(data: Path, tmp_path: Path) -> Path:
    """A run killed between the last checkpoint of classify and its end."""
    shutil.copytree(data / "done" / "classify", tmp_path / "run" / "classify")
    (tmp_path / "run" / "classify" / "done.json").unlink()
    return tmp_path / "run"


@pytest.fixture
def mapped(data: Path, tmp_path: Path) -> Path:
    """A run killed after the first shard of cam and cam_seed."""
    shutil.copytree(data / "done", tmp_path / "run")
    for name in ("cam", "cam_seed"):
        for file in ("index.json", "000001.json"):
            (tmp_path / "run" / name / file).unlink()
    return tmp_path / "run"


def command(data: Path, run: Path, *more: str, verb: tuple[str, ...] = ("run",)) -> list[str]:
    made = [sys.executable, "-m", "amn_dist", verb[0], str(data / "tiny.yaml"), *verb[1:]]
    return [*made, "--run", str(run), "--data", str(data), *more]


def amn(data: Path, run: Path, *more: str, verb: tuple[str, ...] = ("run",)) -> subprocess.CompletedProcess[str]:
    """Without a terminal."""
    arguments = command(data, run, *more, verb=verb)
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL)


def on_a_terminal(arguments: list[str], answer: str) -> tuple[int, str]:
    """Exit code, and what stood on the screen; the answer is typed when a question is asked."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    screen, end = "", time.monotonic() + 300
    while time.monotonic() < end:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                screen += os.read(ours, 4096).decode(errors="replace")
            except OSError:  # how Linux says that the other side has closed
                break
            if "[y/N]" in screen and answer:
                os.write(ours, answer.encode())
                answer = ""
    process.wait(timeout=60)
    os.close(ours)
    return process.returncode, " ".join(screen.split())


def steps(run: Path) -> list[int]:
    lines = map(json.loads, (run / "classify" / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if "step" in line]


def test_without_a_terminal_a_run_stops_with_both_choices(data: Path, trained: Path) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    for verb, more in ((("run",), ("--until", "classify")), (("fit", "classify"), ())):
        ended = amn(data, trained, "--set", "classify.lr=0.002", *more, verb=verb)
        assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
        for words in (
            "classify: holds a checkpoint of step 4",
            "classify.lr 0.001, now 0.002",
            "--keep",
            "--redo classify",
        ):
            assert words in ended.stderr, ended.stderr
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file() and path.name != ".lock"} == before


def test_keep_goes_on_and_redo_begins_anew(data: Path, trained: Path) -> None:
    more = ("--set", "classify.lr=0.002", "--until", "classify")
    known, logged = json.loads((trained / "classify" / "origin.json").read_text()), steps(trained)
    kept = amn(data, trained, "--keep", "--set", "classify.steps=6", *more)
    assert kept.returncode == 0 and "goes on with a checkpoint of step 4" in kept.stderr, kept.stderr
    assert steps(trained) == [*logged, 5, 6]
    origin = json.loads((trained / "classify" / "origin.json").read_text())
    assert origin["before"] == [{**known, "reached": "a checkpoint of step 4"}]
    assert origin["settings"]["classify"]["lr"] == 0.002
    (trained / "classify" / "done.json").unlink()
    anew = amn(data, trained, "--redo", "classify", *more)
    assert anew.returncode == 0 and steps(trained) == [1, 2, 3, 4], anew.stderr
    assert "before" not in json.loads((trained / "classify" / "origin.json").read_text())


def test_keep_refuses_another_network(data: Path, trained: Path) -> None:
    ended = amn(data, trained, "--keep", "--set", "classify.optimiser=sgd", "--until", "classify")
    assert (
        ended.returncode == 2 and "cannot be gone on with" in ended.stderr and "optimiser adam, now sgd" in ended.stderr
    )


@pytest.mark.parametrize(("answer", "code"), [("\n", 2), ("y\n", 0)], ids=["enter", "yes"])
def test_on_a_terminal_the_run_asks_and_enter_keeps_what_there_is(
    data: Path, trained: Path, answer: str, code: int
) -> None:
    arguments = command(data, trained, "--set", "classify.lr=0.002", "--until", "classify", "--no-reuse")
    before = len(steps(trained))
    ended, screen = on_a_terminal(arguments, answer)
    assert ended == code, screen
    assert "Drop it and begin anew? [y/N]" in screen and "a checkpoint of step 4" in screen
    assert steps(trained) == ([1, 2, 3, 4] if code == 0 else [1, 2, 3, 4][:before])
    assert code == 0 or (trained / "classify" / "checkpoints" / "000004").is_dir()


def test_shards_are_mixed_on_request_alone(data: Path, mapped: Path) -> None:
    seed = ("--set", "cam_seed.foreground=0.6")
    before = (mapped / "cam_seed" / "000000.tar").read_bytes()
    for verb, more in ((("run",), ("--until", "cam_seed")), (("map", "cam_seed"), ())):
        ended = amn(data, mapped, *seed, *more, verb=verb)
        assert ended.returncode == 2 and "cam_seed: holds 1 finished shard, made" in ended.stderr, ended.stderr
        assert "cam_seed.foreground 0.3, now 0.6" in ended.stderr and "mixes the two" in ended.stderr
    kept = amn(data, mapped, *seed, "--keep", "--until", "cam_seed")
    assert kept.returncode == 0, kept.stderr
    assert (mapped / "cam_seed" / "index.json").is_file() and (mapped / "cam" / "index.json").is_file()
    assert (mapped / "cam_seed" / "000000.tar").read_bytes() == before


def test_a_sibling_is_not_taken_over_work_of_another_origin(data: Path, trained: Path) -> None:
    other = trained.parent / "other"
    assert amn(data, other, "--set", "classify.lr=0.002", "--until", "classify").returncode == 0
    ended = amn(data, trained, "--set", "classify.lr=0.002", "--until", "classify")
    assert ended.returncode == 2 and "holds a checkpoint of step 4" in ended.stderr
    assert (trained / "classify" / "checkpoints" / "000004").is_dir()
