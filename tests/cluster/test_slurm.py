"""A real Slurm of two nodes runs launch/slurm.sbatch; a job step dies, the job is queued again and ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data_shards.synthetic import pack_synthetic

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "nsenter")
CONF = """
ClusterName=amn
SlurmctldHost={hostname}(10.77.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MessageTimeout=60
SlurmctldPort=6817
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
NodeName=n1 NodeAddr=10.77.0.1 NodeHostname={hostname} Port=6818 CPUs=2 State=UNKNOWN
NodeName=n2 NodeAddr=10.77.0.2 NodeHostname={hostname} Port=6818 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
GANG = Path(__file__).parents[1] / "gang.yaml"
CONFIG = GANG.read_text() + "engine: {precision: fp32, processes: 2, rejoin_s: 3, timeout_s: 60}\n"


@dataclass(frozen=True)
class Slurm:
    """Slurm over two hosts. environment: makes its commands find it."""

    hosts: Any
    environment: dict[str, str]

    def __call__(self, *words: str | Path) -> str:
        inside = ["ip", "netns", "exec", self.hosts.names[0], *map(str, words)]
        done = subprocess.run(inside, capture_output=True, text=True, env=self.environment, cwd=ROOT)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def idle(self) -> bool:
        """Whether both nodes wait for work; no when nobody answers yet."""
        with suppress(AssertionError):
            return self("sinfo", "-h", "-o", "%T %D") == "idle 2"
        return False


@pytest.fixture
def slurm(wires: Any, wait_for: Any) -> Iterator[Slurm]:
    """Daemons with a key and a configuration of their own; they end with their hosts."""
    places = [*os.environ["PATH"].split(os.pathsep), "/usr/sbin", "/sbin"]
    if missing := [tool for tool in TOOLS if shutil.which(tool, path=os.pathsep.join(places)) is None]:
        pytest.skip(f"Slurm is absent ({', '.join(missing)}); apt-get install slurmctld slurmd slurm-client munge")
    # munged trusts only a socket whose parents nobody else may write; /tmp is writable by all.
    folder = Path("/run") / f"amn-slurm-{os.getpid()}"
    for name in ("", "state", "spool.n1", "spool.n2"):
        (folder / name).mkdir(mode=0o755)
    hostname = os.uname().nodename
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, hostname=hostname))
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    environment = {**wires.environment(), "SLURM_CONF": str(folder / "slurm.conf"), "PATH": os.pathsep.join(places)}
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    daemons = [
        (0, ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files]),
        (0, ["slurmctld", "-D"]),
        (0, ["slurmd", "-D", "-N", "n1"]),
        (1, ["slurmd", "-D", "-N", "n2"]),
    ]
    started = []
    try:
        for host, words in daemons:
            # `ip netns exec` would hide /sys/fs/cgroup, which slurmd looks for.
            inside = ["nsenter", f"--net=/run/netns/{wires.names[host]}", *words]
            with (folder / "said.txt").open("ab") as said:
                started.append(subprocess.Popen(inside, env=environment, stdout=said, stderr=said))
            wait_for(lambda: bool(list(folder.glob("munge.socket"))), "munged", seconds=60)
        running = Slurm(wires, environment)
        wait_for(lambda: running.idle() or any(daemon.poll() is not None for daemon in started), "n1 and n2 idle")
        said = "\n".join(log.read_text(errors="replace") for log in (folder / "said.txt", *folder.glob("slurm*.log")))
        assert all(daemon.poll() is None for daemon in started), said
        yield running
    finally:
        for daemon in reversed(started):
            daemon.terminate()
        for daemon in started:
            daemon.wait(timeout=60)
        shutil.rmtree(folder)


def curve(folder: Path) -> dict[int, float]:
    """Loss by step; of a step done twice, the later."""
    lines = map(json.loads, (folder / "classify" / "metrics.jsonl").read_text().splitlines())
    return {record["step"]: record["total"] for record in lines if "total" in record}


def scores(folder: Path) -> list[float]:
    """mIoU of the maps at every threshold, then of the seeds, from `amn score`."""
    subprocess.run([sys.executable, "-m", "amn_dist", "score", str(folder)], check=True, capture_output=True)
    rows = json.loads((folder / "score" / "score.json").read_text())["sets"]["train"]["rows"]
    return [*rows["cam"]["miou"], rows["cam_seed"]["miou"]]


def test_a_job_whose_step_dies_is_queued_again_and_ends(slurm: Slurm, tmp_path: Path, wait_for: Any) -> None:
    pack_synthetic(tmp_path / "train", images=24, seed=0, classes=2, shard_size=6)
    pack_synthetic(tmp_path / "val", images=4, seed=9, classes=2, shard_size=4)
    (tmp_path / "c.yaml").write_text(CONFIG)
    words = ["c.yaml", "--data", ".", "--until", "cam_seed", "--no-reuse"]
    alone = [*words, "--run", "alone", "--set", "engine.processes=1", "--set", "farm.name=local"]
    command = [sys.executable, "-m", "amn_dist", "run", *alone]
    subprocess.run(command, cwd=tmp_path, check=True, env=slurm.environment, capture_output=True)

    options = [f"--chdir={tmp_path}", "--parsable", "--cpus-per-task=1", f"--output={tmp_path}/job.out"]
    job = slurm("sbatch", *options, ROOT / "launch" / "slurm.sbatch", *words, "--run", "run")
    run = tmp_path / "run"

    def said() -> str:
        return (tmp_path / "job.out").read_text() if (tmp_path / "job.out").exists() else ""

    def state() -> str:
        return slurm("squeue", "-h", "-j", job, "-t", "all", "-o", "%T")

    def training() -> bool:
        assert state() in ("PENDING", "CONFIGURING", "RUNNING"), said()
        return bool(list(run.glob("classify/checkpoints/00000[4-9]/state.json")))

    wait_for(training, "a checkpoint", seconds=300)
    slurm("scancel", f"{job}.0")
    wait_for(lambda: "queued again" in said(), "the requeue")
    ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
    wait_for(lambda: state() in ends, "the end", seconds=500)
    assert state() == "COMPLETED", said()
    assert curve(run) == pytest.approx(curve(tmp_path / "alone"), rel=1e-3)
    assert scores(run) == pytest.approx(scores(tmp_path / "alone"), abs=0.01)
