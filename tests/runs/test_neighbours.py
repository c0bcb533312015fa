"""Runs beside a run: what they made is taken over, what is wrong with them stays theirs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from amn_dist.config import Config
from amn_dist.errors import ConfigError
from amn_dist.methods import Stage, stages
from amn_dist.models.weights import read_tensors
from amn_dist.records import ACTIVATION
from amn_dist.runs.neighbours import reuse
from amn_dist.runs.origins import Origin
from amn_dist.runs.pipeline import reopen
from amn_dist.runs.run import Run, write_json
from amn_dist.shards.format import encode
from amn_dist.shards.writer import write_index, write_shard
from amn_dist.storage.paths import is_file

STAGES = {stage.name: stage for stage in stages(Config(name="x"))}
ORIGIN = Origin({"cam": {}}, {"train set": "1"}, "code")


@pytest.fixture(params=["classify", "cam"])
def stage(request: pytest.FixtureRequest) -> Stage:
    return STAGES[request.param]


def made_by(folder: Path, stage: Stage) -> Run:
    """A run that has finished a stage."""
    run = Run(folder)
    run.begin(stage, ORIGIN)
    if stage.verb == "fit":
        run.checkpoint(stage.name).write_bytes(b"weights")
        write_json(run.stage(stage.name) / "done.json", {"digest": sha256(b"weights").hexdigest()})
        return run
    rows = [(f"k{n}", (8, 8), {ACTIVATION: encode(ACTIVATION, np.full((1, 2, 2), n, np.float16))}) for n in range(2)]
    reports = [write_shard(run.stage(stage.name), n, [row]) for n, row in enumerate(rows)]
    write_index(run.stage(stage.name), kind=stage.name, classes=("background", "cat"), reports=reports)
    return run


def largest(run: Run, stage: Stage) -> Path:
    """The weights, or a shard."""
    return next(path for name in ("model.safetensors", "000001.tar") if (path := run.stage(stage.name) / name).exists())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


HARM: dict[str, Callable[[Run, Stage], object]] = {
    "a cut file": lambda run, stage: largest(run, stage).write_bytes(largest(run, stage).read_bytes()[:-3]),
    "a changed byte": lambda run, stage: flip(largest(run, stage)),
    "a missing file": lambda run, stage: largest(run, stage).unlink(),
    "half an origin": lambda run, stage: (run.stage(stage.name) / "origin.json").write_text('{"settings": {'),
    "another origin": lambda run, stage: (run.stage(stage.name) / "origin.json").write_text('{"made": 1}'),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_neighbour_is_passed_over_and_a_sound_one_taken(tmp_path: Path, stage: Stage, harm: str) -> None:
    HARM[harm](made_by(tmp_path / "a", stage), stage)
    told: list[tuple[str, str]] = []
    run = Run(tmp_path / "mine")
    assert reuse(run, stage, ORIGIN, tell=lambda *words: told.append(words)) is None
    assert [name for name, _ in told] == ["a"] and all(why.isprintable() and why for _, why in told)
    assert not run.stage(stage.name).exists()
    made_by(tmp_path / "b", stage)
    assert reuse(run, stage, ORIGIN) == "b" and run.is_done(stage)


def test_what_lies_there_that_is_no_run_is_not_spoken_of(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "lost").symlink_to("nowhere")
    told: list[tuple[str, str]] = []
    assert reuse(Run(tmp_path / "mine"), stage, ORIGIN, tell=lambda *words: told.append(words)) is None
    assert not told


@pytest.fixture
def someone() -> Iterator[Path]:
    """A folder that all may look into, this process being a user without rights."""
    if os.geteuid():
        pytest.skip("becoming another user needs root")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    made_by(folder / "theirs", STAGES["classify"])
    yield folder
    os.seteuid(0)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["theirs", "theirs/classify", "theirs/classify/model.safetensors"])
def test_a_neighbour_of_another_user_is_passed_over(someone: Path, name: str) -> None:
    (someone / name).chmod(0o000)
    os.seteuid(65534)
    told: list[tuple[str, str]] = []
    run = Run(someone / "mine")
    assert reuse(run, STAGES["classify"], ORIGIN, tell=lambda *words: told.append(words)) is None
    assert told and told[0][0] == "theirs" and "ermission denied" in told[0][1]


def test_what_may_not_be_read_is_not_called_missing(someone: Path) -> None:
    theirs = someone / "theirs"
    theirs.chmod(0o000)
    os.seteuid(65534)
    for ask in (lambda: is_file(theirs / "config.yaml"), lambda: reopen(theirs)):
        with pytest.raises(ConfigError, match=r"theirs/config\.yaml: permission denied"):
            ask()
    os.seteuid(0)
    theirs.chmod(0o755)
    (theirs / "classify" / "model.safetensors").chmod(0o600)
    os.seteuid(65534)
    with pytest.raises(ConfigError, match=r"model\.safetensors: cannot be read .*Permission denied"):
        read_tensors(theirs / "classify" / "model.safetensors")
