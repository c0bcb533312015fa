"""Runs whose folder is on S3: the results of local ones, on any machine, through faults and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from amn_dist.cli import app
from amn_dist.commands.predict.photographs import predict_files
from amn_dist.config import load_config
from amn_dist.errors import AmnError, ShardError, StageError
from amn_dist.interchange.selection import select_masks
from amn_dist.report.run_folder import read_runs
from amn_dist.runs.pipeline import Pipeline, reopen
from amn_dist.runs.run import Run, drop, read_json
from amn_dist.storage import lease
from amn_dist.storage.folders import files_below
from amn_dist.storage.paths import AnyPath, RemotePath, path_of
from amn_dist.storage.scratch import SCRATCH
from data_shards.synthetic import pack_synthetic

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
name: tiny
method: irn
classify: &fit
  backbone: {name: small, stride: 8, weights: null, frozen_taps: 0}
  optimiser: adam
  lr: 1.0e-3
  lr_head: 1.0e-3
  batch: 8
  epochs: 3
  crop: 64
  checkpoint_every: 1
  log_every: 1
  long_side: [72, 96]
irn: {batch: 8, backbone: {name: small, stride: 8, weights: null, frozen_taps: 0}}
segment: {batch: 8, backbone: {name: small, stride: 8, weights: null, frozen_taps: 0}}
cam: {scales: [1.0]}
predict: {crf: "off"}
data: {val: null}
engine: {name: torch}
farm: {name: local}
loader: {name: torchvision}
"""


def digests(folder: AnyPath) -> dict[str, str]:
    """What every finished stage of a run yielded."""
    digest_of = {}
    for name in files_below(folder):
        if name.endswith(("/index.json", "/done.json")):
            digest_of[name.split("/")[0]] = str(read_json(folder / name)["digest"])
    return digest_of


def steps(run: AnyPath) -> list[int]:
    """Steps in the log of a Fit."""
    lines = (run / "classify" / "metrics.jsonl").read_text().splitlines()
    return [record["step"] for record in map(json.loads, lines) if "step" in record]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    pack_synthetic(folder / "train", images=16, classes=2, shard_size=4, size=(64, 80))
    (folder / "tiny.yaml").write_text(CONFIG)
    return folder


def line(scenes: Path, run: AnyPath, *, reuse: bool = False, screen: Any = None) -> Pipeline:
    console = Console(file=screen, width=200) if screen else Console(quiet=True)
    return Pipeline(load_config(scenes / "tiny.yaml"), Run(run), scenes, console=console, reuse=reuse)


@pytest.fixture(scope="module")
def local(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it is in a folder."""
    run = tmp_path_factory.mktemp("runs") / "local"
    line(scenes, run).execute(until="cam_seed")
    line(scenes, run).execute(only="score")
    return run


def uploaded(local: Path, run: RemotePath) -> RemotePath:
    """A copy of a run."""
    for name in files_below(local):
        (run / name).write_bytes((local / name).read_bytes())
    return run


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(SCRATCH, str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def test_a_run_is_the_same_on_s3_and_every_command_reads_it(
    scenes: Path, local: Path, bucket: str, tmp_path: Path
) -> None:
    run = f"{bucket}/runs/tiny"
    said = amn("run", str(scenes / "tiny.yaml"), "--data", str(scenes), "--run", run, "--until", "cam_seed")
    assert digests(path_of(run)) == digests(local) and len(digests(local)) == 3
    assert "mIoU" in amn("score", run)
    assert read_json(path_of(run) / "score" / "score.json") == read_json(local / "score" / "score.json")
    assert steps(path_of(run)) == [1, 2, 3, 4, 5, 6] and "classify: done" in said
    (record,) = read_runs([path_of(run)])
    assert record.label == "tiny" and [stage.state for stage in record.stages[:3]] == ["done"] * 3
    assert len(record.stages[0].metrics.losses["total"]) == 6 and set(record.outputs) == {"cam", "cam_seed"}
    assert "runs/tiny" in amn("plan", str(scenes / "tiny.yaml"), "--no-measure", "--data", str(scenes), "--run", run)
    key = record.sets["train"].entry(0).key
    amn("show", run, key, "--out", str(tmp_path / "show.png"))
    amn("report", run, "--out", str(tmp_path / "report.html"), "--images", "2")
    assert "Losses of classify" in (tmp_path / "report.html").read_text()
    amn("export", "masks", run, "--stage", "cam_seed", "--out", str(tmp_path / "masks"))
    assert len(list((tmp_path / "masks").glob("*.png"))) == 16
    assert select_masks(f"{run}/cam_seed").shards.digest == digests(local)["cam_seed"]
    amn("export", "weights", run, "classify", "--out", str(tmp_path / "out.safetensors"))
    assert load_file(tmp_path / "out.safetensors")


def amn(*arguments: str) -> str:
    """What a command says that ends well."""
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 0, f"{ended.output}\n{ended.exception!r}"
    return ended.output


def test_imported_weights_segment_photographs(scenes: Path, bucket: str, tmp_path: Path) -> None:
    from amn_dist.interchange.weights import untrained_network
    from amn_dist.models.weights import save_network

    run = RemotePath(f"{bucket}/runs/theirs")
    new = line(scenes, run)
    save_network(untrained_network(new, new.stage("segment")), tmp_path / "theirs.safetensors")
    config, data = str(scenes / "tiny.yaml"), str(scenes)
    command = ("import", "weights", str(tmp_path / "theirs.safetensors"), "--run", str(run), "--stage", "segment")
    assert str(run) in amn(*command, "--config", config, "--data", data)
    assert (run / "segment" / "model.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    assert reopen(run).run.imported("segment") == "theirs.safetensors"
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    (done,) = predict_files(run, [tmp_path / "a.png"], tmp_path / "out")
    assert done.mask is not None and Image.open(done.mask).size == (40, 30)


def started(scenes: Path, run: RemotePath, scratch: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "amn_dist", "run", str(scenes / "tiny.yaml"), "--data", str(scenes), "--no-reuse"]
    return subprocess.Popen(
        [*command, "--run", str(run), "--until", "cam_seed"],
        cwd=ROOT,
        env={**os.environ, **environment, SCRATCH: str(scratch)},
    )


def test_a_killed_run_goes_on_on_another_machine(
    scenes: Path, local: Path, bucket: str, s3: Any, environment: dict[str, str], tmp_path: Path, wait_for: Any
) -> None:
    run = RemotePath(f"{bucket}/runs/killed")

    def kill_at(machine: str, method: str, part: str) -> None:
        """Kill the run on a machine when it asks for something that is never answered."""
        process = started(scenes, run, tmp_path / machine, environment)
        s3.fail("slow", 1, method=method, part=part, seconds=3600)
        wait_for(lambda: s3.asked(method, part), f"{method} {part}", process)
        process.kill()
        process.wait()

    kill_at("a", "PUT", "checkpoints/000003/state.json")
    assert [path.name for path in (run / "classify" / "checkpoints").iterdir()] == ["000001", "000002", "000003"]
    assert digests(run) == {}
    first = s3.count("GET")
    kill_at("b", "PUT", "cam/000002.tar")
    assert any("checkpoints/000002/snapshot.pt" in request for request in s3.seen[first:])
    assert digests(run).keys() == {"classify"} and not list((tmp_path / "b").glob("*/fit/checkpoints/*"))
    line(scenes, run).execute(until="cam_seed")
    assert digests(run) == digests(local)
    puts = [request.split("/")[-1] for request in s3.seen if request.startswith("PUT") and "/cam/0" in request]
    assert puts.count("000000.tar") == 1 and puts.count("000002.tar") == 2
    assert sorted(set(steps(run))) == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in (run / "classify" / "checkpoints").iterdir()] == ["000005", "000006"]


def test_checkpoints_reach_a_storage_that_fails_for_a_while(scenes: Path, local: Path, bucket: str, s3: Any) -> None:
    for step, kind in enumerate(("busy", "throttled", "reset", "dropped", "slow", "busy"), 1):
        times = 1 if kind == "slow" else 2
        s3.fail(kind, times, method="PUT", part=f"checkpoints/{step:06d}/snapshot.pt", seconds=0.2)
    for part in ("model.safetensors", "done.json", "origin.json", "config.yaml", "metrics.jsonl", "state.json"):
        s3.fail("dropped", 1, method="PUT", part=part)
    s3.fail("truncated", 2, method="GET", part="model.safetensors")
    run = RemotePath(f"{bucket}/runs/x")
    line(scenes, run).execute(until="classify")
    assert digests(run)["classify"] == digests(local)["classify"]
    assert not any(fault.left for fault in s3.faults)


@pytest.mark.parametrize(("kind", "told"), [("denied", "403 AccessDenied"), ("busy", "503 SlowDown; ")])
def test_a_storage_that_refuses_a_checkpoint_ends_a_run_in_one_line(
    scenes: Path, local: Path, bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch, kind: str, told: str
) -> None:
    run = RemotePath(f"{bucket}/runs/x")
    s3.fail(kind, 1000, method="PUT", part="checkpoints/000002/snapshot.pt")
    monkeypatch.setenv("AMN_STORAGE_PATIENCE_S", "0.5")
    with pytest.raises(StageError, match=rf"000002/snapshot\.pt: cannot be written \({told}") as error:
        line(scenes, run).execute(until="classify")
    assert "\n" not in str(error.value) and error.value.exit_code == 1
    s3.faults.clear()
    s3.seen.clear()
    line(scenes, run).execute(until="classify")
    assert digests(run)["classify"] == digests(local)["classify"]
    assert not any("PUT" in request and "checkpoints/000001" in request for request in s3.seen)


def test_a_sibling_takes_over_what_is_the_same(scenes: Path, local: Path, bucket: str, s3: Any) -> None:
    first, second = uploaded(local, RemotePath(f"{bucket}/runs/a")), RemotePath(f"{bucket}/runs/b")
    s3.seen.clear()
    (first.parent / "notes.txt").touch()
    s3.fail(
        "unknown", 1, method="PUT", part="b/cam/000001.tar", header="x-amz-copy"
    )  # a storage that does not copy everything
    line(scenes, second, reuse=True).execute(until="cam_seed")
    assert digests(second) == digests(first) and len(digests(first)) == 3
    assert not any("GET" in request and "a/classify/model.safetensors" in request for request in s3.seen)
    assert not files_below(second / "classify" / "checkpoints")
    for name in ("classify", "cam", "cam_seed"):
        drop(first / name)
    line(scenes, second).execute(until="cam_seed")


def test_a_removal_that_is_cut_off_leaves_unfinished_work_of_its_origin(
    scenes: Path, local: Path, bucket: str, s3: Any
) -> None:
    run = line(scenes, uploaded(local, RemotePath(f"{bucket}/runs/a")))
    s3.fail("none", 3, method="POST", part="?delete")  # the files that would say it is done
    s3.fail("denied", 1000, method="POST", part="?delete")
    with pytest.raises(ShardError, match="cannot be removed"):
        run.run.drop(["classify"])
    assert run.state(run.stage("classify")) == "begun"
    s3.faults.clear()
    run.run.drop(["classify"])
    assert run.state(run.stage("classify")) == "open" and not (run.run.folder / "classify").exists()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "REFRESH_S", 0.1)
    monkeypatch.setattr(lease, "DEAD_S", 3.0)


def test_a_lease_is_free_though_a_sign_of_life_was_on_its_way(bucket: str, s3: Any, soon: None, wait_for: Any) -> None:
    run = RemotePath(f"{bucket}/runs/x")
    with lease.holding(run, lambda text: None):
        s3.fail("late", 1, method="PUT", part="lease.json", seconds=1.0)
        wait_for(lambda: s3.faults[0].done, "a sign of life that is written and not yet answered")
    assert (run / lease.LEASE).read_bytes() == lease.FREE


@pytest.mark.parametrize("kind", ["dropped", "unknown", "busy", "slow"])
def test_a_lease_survives_the_storage(bucket: str, s3: Any, soon: None, kind: str, wait_for: Any) -> None:
    run = RemotePath(f"{bucket}/runs/x")
    conditional = {"header": "if-"} if kind == "unknown" else {}
    s3.fail(kind, 3, method="PUT", part="lease.json", seconds=0.3, **conditional)
    with lease.holding(run, lambda text: None):
        wait_for(lambda: not any(fault.left for fault in s3.faults), "all faults")
        met = s3.count("PUT")
        wait_for(lambda: s3.count("PUT") > met + 1, "a refresh after them")
        holder = lease.read_holder((run / lease.LEASE).tagged())
        assert holder is not None and holder.pid == os.getpid()
    assert (run / lease.LEASE).read_bytes() == lease.FREE


def test_of_those_that_wait_for_a_dead_holder_one_goes_on(bucket: str, soon: None, wait_for: Any) -> None:
    run = RemotePath(f"{bucket}/runs/x")
    (run / lease.LEASE).write_bytes(lease.holder_bytes(lease.Holder("far", "boot", 7, "1", "token", 0.0)))
    ends: list[str] = []
    over = threading.Event()

    def drive() -> None:
        try:
            with lease.holding(run, lambda text: None):
                ends.append("held")
                over.wait(300)
        except AmnError as error:
            ends.append("working" if "is working on this run" in str(error) else str(error))

    threads = [threading.Thread(target=drive, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(ends) == 4, "all four ends")
    finally:
        over.set()
    for thread in threads:
        thread.join(60)
    assert sorted(ends) == ["held", "working", "working", "working"]


def test_a_run_that_another_machine_works_on_is_refused(scenes: Path, bucket: str, soon: None) -> None:
    run = RemotePath(f"{bucket}/runs/x")
    with lease.holding(run, lambda text: None):
        ended = CliRunner().invoke(app, ["score", str(run)])
        assert "not a run" in str(ended.exception)
        with pytest.raises(StageError, match="another process"):
            line(scenes, run).execute(until="classify")
    assert list(files_below(run)) == [lease.LEASE]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", ["torchrun", "ray"])
def test_a_gang_trains_for_a_url_and_starts_again(
    scenes: Path,
    local: Path,
    bucket: str,
    s3: Any,
    environment: dict[str, str],
    tmp_path: Path,
    launcher: str,
    wait_for: Any,
) -> None:
    settings = ["--set", "engine.processes=2", "--set", f"engine.launcher={launcher}", "--set", "engine.rejoin_s=3"]
    command = [sys.executable, "-m", "amn_dist", "run", str(scenes / "tiny.yaml"), "--data", str(scenes), *settings]
    ended = {}
    for run in (tmp_path / "local", RemotePath(f"{bucket}/runs/gang")):
        process = subprocess.Popen(
            [*command, "--run", str(run), "--until", "classify"],
            cwd=ROOT,
            env={**os.environ, **environment, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if isinstance(run, RemotePath):
            s3.fail("slow", 1, method="PUT", part="checkpoints/000003/state.json", seconds=3600)
            wait_for(lambda: s3.asked("PUT", "000003/state.json"), "the third checkpoint", process)
            os.kill(first_rank(process.pid), signal.SIGKILL)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        ended[str(run)] = (digests(run), steps(run), " ".join(said.split()))
    (there, log, said), (here, _, _) = ended[f"{bucket}/runs/gang"], ended[str(tmp_path / "local")]
    assert there == here and sorted(set(log)) == [1, 2, 3, 4, 5, 6]
    assert "started again from 000002" in said


def first_rank(pid: int) -> int:
    """The process below `pid` that trains as the first rank."""
    for child in descendants(pid):
        words = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        name = Path(f"/proc/{child}/cmdline").read_bytes()
        if (b"RANK=0" in words and b"--member" in name) or b"RayTrainWorker" in name:
            return child
    raise AssertionError("no process trains")


def descendants(pid: int) -> list[int]:
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    return children + [below for child in children for below in descendants(child)]
