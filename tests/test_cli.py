"""The command line as a person meets it: real processes, real shards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from amn_dist.cli import handlers_heard
from amn_dist.errors import StageError


def amn(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "amn_dist", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "160", "TERM": "dumb"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment, check=False)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    done = amn("pack", "synthetic", "--images", "8", "--out", "train", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "8 samples" in done.stdout
    return root


COMMANDS = (
    "init",
    "run",
    "plan",
    "fit",
    "map",
    "score",
    "report",
    "calibrate",
    "predict",
    "show",
    "doctor",
    "demo",
    "verify",
    "bench",
)
GROUPS = ("pack", "import", "export")


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("--help",), 0)])
def test_no_argument_and_help_show_the_commands(arguments: tuple[str, ...], code: int, tmp_path: Path) -> None:
    done = amn(*arguments, cwd=tmp_path)
    assert done.returncode == code and done.stderr == ""
    assert [name for name in (*COMMANDS, *GROUPS) if f" {name} " not in done.stdout] == []


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_of_commands_without_one_shows_them(group: str, tmp_path: Path) -> None:
    done = amn(group, cwd=tmp_path)
    assert done.returncode == 2 and f"Usage: amn {group}" in done.stdout and "Commands" in done.stdout


@pytest.mark.parametrize(("set_before", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_sleep_unless_told_otherwise(set_before: str | None, expected: str) -> None:
    script = (
        "import os, sys\nfrom amn_dist import cli\nassert 'torch' not in sys.modules\nsys.argv = ['amn', '--help']\n"
        "try: cli.main()\nexcept SystemExit: print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if set_before is None else {"OMP_WAIT_POLICY": set_before}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, env=environment)
    assert done.stdout.splitlines()[-1:] == [expected], done.stderr


def test_verify_and_show(scenes: Path) -> None:
    assert amn("verify", "train", cwd=scenes).returncode == 0
    shown = amn("show", "train", "--out", "a.png", cwd=scenes)
    assert shown.returncode == 0, shown.stderr
    with Image.open(scenes / "a.png") as picture:
        assert picture.width > 200 and picture.height > 200


def test_a_changed_byte_is_found(scenes: Path, tmp_path: Path) -> None:
    for path in (scenes / "train").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tar = next(tmp_path.glob("*.tar"))
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    tar.write_bytes(content)
    found = amn("verify", tmp_path, cwd=tmp_path)
    assert found.returncode == 2 and tar.name in found.stderr and "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("run", "nowhere.yaml"), 2, ["nowhere.yaml"]),
        (("score", "nowhere"), 2, ["nowhere", "not a run"]),
        (("report", "nowhere"), 2, ["nowhere", "not a run"]),
        (("verify", "nowhere"), 2, ["nowhere"]),
        (("pack", "voc", "nowhere", "--out", "o"), 2, ["nowhere"]),
        (("import", "maps", "nowhere", "--images", "x", "--out", "o"), 2, ["x", "cannot be listed"]),
        (("import", "weights", "x.pth", "--as", "cam", "--run", "r"), 2, ["--as with --out, or --run with --stage"]),
        (("export", "masks", "nowhere", "--out", "o"), 2, ["nowhere", "not a run"]),
        (("frobnicate",), 2, ["frobnicate"]),
        (("verify", "x" * 300), 2, ["xxx", "neither a tar"]),
        (("verify", "x" * 5000), 2, ["xxx", "expected at most 4095 bytes"]),
        (("pack", "synthetic", "--out", "o", "--seed", "-1"), 2, ["--seed"]),
        (("pack", "synthetic", "--out", "o", "--seed", "²"), 2, ["--seed"]),
        (("pack", "synthetic", "--out", "o", "--images", "9" * 5000), 2, ["--images"]),
        (("pack", "synthetic", "--out", "o", "--shard-size", "0"), 2, ["--shard-size"]),
        (("pack", "synthetic", "--out", "o", "--workers", "9" * 30), 2, ["--workers"]),
    ],
)
def test_mistakes_are_one_line_with_exit_code_2(
    arguments: tuple[str, ...], code: int, words: list[str], tmp_path: Path
) -> None:
    done = amn(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr


def test_plan_names_stages_of_an_unstarted_run(scenes: Path) -> None:
    (scenes / "c.yaml").write_text(
        "name: x\nmethod: irn\ndata: {train: train, val: null}\nclassify: {batch: 4}\nirn: {batch: 4}\n"
        "segment: {batch: 4, backbone: {weights: null}}\n"
    )
    planned = amn("plan", "c.yaml", "--no-measure", cwd=scenes)
    assert planned.returncode == 0, planned.stderr
    assert "classify" in planned.stdout and "10 steps of 4" in planned.stdout
    assert not (scenes / "runs").exists()


def test_unknown_stage_and_setting_are_named(scenes: Path) -> None:
    (scenes / "d.yaml").write_text("name: x\nmethod: irn\ndata: {val: null}\n")
    wrong = amn("run", "d.yaml", "--until", "amn", cwd=scenes)
    assert wrong.returncode == 2 and "no stage of method irn" in wrong.stderr
    wrong = amn("run", "d.yaml", "--set", "cam.scale=[1]", cwd=scenes)
    assert wrong.returncode == 2 and "did you mean scales" in wrong.stderr


def test_doctor_finds_every_engine(tmp_path: Path) -> None:
    done = amn("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "MISSING" not in done.stdout
    assert all(name in done.stdout for name in ("deepspeed", "ray", "webdataset", "nvidia-dali", "pydensecrf2"))


@pytest.mark.parametrize("raised", [StageError("stopped by SIGTERM"), KeyboardInterrupt()])
def test_what_a_handler_raises_inside_compiled_code_is_heard(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as heard, handlers_heard():
        raise SystemError("<function> returned a result with an exception set") from raised
    assert heard.value is raised
    with pytest.raises(SystemError, match="bad argument"), handlers_heard():
        raise SystemError("bad argument")
