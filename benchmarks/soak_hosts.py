"""Does a run over three hosts end as an undisturbed one when hosts die, storage fails, and memory is watched?

Three hosts in network namespaces, one Ray cluster, and an S3 server that lets a share of requests fail (refused, cut,
answered half or not at all, late). `amn run` trains a small classifier and maps a drawn set from there to there; when
a run is whole the next begins. Every two minutes a host, drawn from a seed, loses power. It comes back; where the head
died, and the driver with it, the cluster is started anew and the same command goes on. At the end every run's digests
must be those of a run on this machine alone, and memory is told: of the driver, and of each host without it, by life
and by run. Lives are short and runs begin anew in them: memory is flat where later runs reach what the first reached.

    python -m benchmarks.soak_hosts [--minutes 30] [--every 120] [--images 4000] [--share 0.01] [--seed 0]

Needs root, iproute2, and the S3 server that launch/test.sh installs. The last run ends undisturbed, after the minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amn_dist.runs.run import read_json
from amn_dist.storage.folders import files_below, in_parallel
from amn_dist.storage.paths import path_of
from benchmarks.endurance import BUCKET, UNTIL, Plan, asked, endured
from benchmarks.faulty_s3 import SERVER
from benchmarks.harness import write_result
from benchmarks.memory import growth
from benchmarks.namespaces import SWITCH, Hosts, NoNamespaces, wired
from data_shards.synthetic import pack_synthetic

HOSTS = 3
STORAGE_PORT = 9000
WARM_S = 45.0
"""Seconds of a life in which it loads what it needs."""
CONFIG = """
name: soak
method: irn
classify:
  backbone: {name: small, stride: 8, weights: null, frozen_taps: 0}
  batch: 8
  steps: 24
  crop: 64
  checkpoint_every: 4
  log_every: 1
  long_side: [72, 112]
cam: {scales: [1.0, 0.5]}
data: {val: null}
engine: {name: torch, precision: fp32}
loader: {name: torchvision, threads: 1}
farm: {chunk: 10}
"""


def soak(plan: Plan, folder: Path) -> dict[str, Any]:
    """The whole question. Raises NoNamespaces where there can be no hosts; stops where a run ends otherwise."""
    if not SERVER.is_file():
        raise NoNamespaces("the S3 server is not installed (launch/test.sh puts it into .venv-s3)")
    (folder / "soak.yaml").write_text(CONFIG)
    with wired(folder / "cluster", HOSTS, variables(folder)) as hosts:
        pack_synthetic(folder / "data/train", images=plan.images, classes=2, shard_size=plan.shard_size)
        expected = undisturbed(folder)
        with storage(hosts, plan, folder / "storage.json"):
            asked(hosts, "upload", folder / "data", f"s3://{BUCKET}/data")
            hosts.list_hosts()
            hosts.launch("up")
            course = endured(hosts, plan, folder, expected)
        met = json.loads((folder / "storage.json").read_text())
    return {
        "hosts": HOSTS,
        **{name: getattr(plan, name) for name in ("minutes", "every_s", "images", "share", "seed")},
        "deaths": course.deaths,
        "storage": met,
        "runs": course.runs,
        "memory": {
            "driver": growth(course.driver, warm_s=WARM_S),
            **{f"host {n}": growth(course.hosts[name], warm_s=WARM_S) for n, name in enumerate(hosts.names)},
        },
    }


def variables(folder: Path) -> dict[str, str]:
    """Where S3 is, and where a run's scratch lies, for every process on a host."""
    return {
        "AWS_ENDPOINT_URL": f"http://{SWITCH}:{STORAGE_PORT}",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AMN_SCRATCH": str(folder / "scratch"),
    }


@contextmanager
def storage(hosts: Hosts, plan: Plan, told: Path) -> Iterator[None]:
    """The S3 server, in the namespace that joins the hosts."""
    words = [SWITCH, STORAGE_PORT, plan.share, plan.seed, told, BUCKET]
    server = hosts.python(hosts.switch, "-m", "benchmarks.faulty_s3", *map(str, words))
    try:
        assert server.stdout is not None and server.stdout.readline() == "ready\n", "the S3 server did not start"
        yield
    finally:
        server.kill()
        server.wait()


def undisturbed(folder: Path) -> dict[str, str]:
    """Digests of the stages of a run on this machine alone."""
    run = folder / "undisturbed"
    words = ["run", folder / "soak.yaml", "--data", folder / "data", "--run", run, "--no-reuse", "--until", UNTIL]
    command = [sys.executable, "-m", "amn_dist", *map(str, words), "--set", "farm.name=local"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return digests(str(run))


def digests(url: str) -> dict[str, str]:
    """What every finished stage of a run yielded."""
    run = path_of(url)
    last = [name for name in files_below(run) if name.endswith(("/index.json", "/done.json"))]
    return {name.split("/")[0]: str(read_json(run / name)["digest"]) for name in last}


def upload(source: str, url: str) -> int:
    """Copy a folder's files to an empty one; how many."""
    here, there = Path(source), path_of(url)
    return len(in_parallel(lambda name: (there / name).write_bytes((here / name).read_bytes()), files_below(here)))


def main() -> None:
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=plan.minutes, help="in which hosts die")
    parser.add_argument("--every", type=float, default=plan.every_s, help="seconds between two deaths")
    parser.add_argument("--images", type=int, default=plan.images)
    parser.add_argument("--share", type=float, default=plan.share, help="of requests to the storage that fail")
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--ask", nargs="+", help=argparse.SUPPRESS)
    asked_for = parser.parse_args()
    if asked_for.ask:
        what, *words = asked_for.ask
        print(json.dumps(digests(*words) if what == "digests" else upload(*words)))
        return
    plan = Plan(asked_for.minutes, asked_for.every, asked_for.images, share=asked_for.share, seed=asked_for.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # namespaces would outlive this process
    with tempfile.TemporaryDirectory() as folder:
        try:
            record = soak(plan, Path(folder))
        except NoNamespaces as reason:
            sys.exit(f"soak_hosts: {reason}")
    write_result("soak_hosts", record)


if __name__ == "__main__":
    main()
