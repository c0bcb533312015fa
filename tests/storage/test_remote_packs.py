"""Packing to S3: the same bytes as to a folder, whatever happens on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from amn_dist.errors import ShardError
from amn_dist.farms.local import LocalFarm
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.paths import RemotePath
from data_shards.synthetic import pack_synthetic
from data_shards.verify import verify

ROOT = Path(__file__).resolve().parents[2]
SCENES: dict[str, Any] = {"images": 12, "size": (32, 48), "shard_size": 3}


def contents(folder: Path | RemotePath) -> dict[str, bytes]:
    files: Iterable[Path | RemotePath] = folder.iterdir()
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "out"
    pack_synthetic(folder, **SCENES)
    return folder


def test_a_pack_is_the_same_on_s3_and_verified_there(bucket: str, local: Path, s3: Any) -> None:
    pack_synthetic(RemotePath(f"{bucket}/x"), **SCENES)
    assert contents(RemotePath(f"{bucket}/x")) == contents(local)
    verified = verify(RemotePath(f"{bucket}/x"))
    assert (verified.samples, verified.shards, verified.decoded) == (12, 4, True)
    puts = s3.count("PUT")
    assert puts == len(contents(local))  # a request a file: no parts, nothing temporary
    assert pack_synthetic(f"{bucket}/x", **SCENES).digest == ShardSet.open(local).digest
    assert s3.count("PUT") == puts
    pack_synthetic(f"{bucket}/farm", **SCENES, farm=LocalFarm())
    assert contents(RemotePath(f"{bucket}/farm")) == contents(local)


def test_what_is_there_is_kept_or_refused(bucket: str, local: Path) -> None:
    out = RemotePath(f"{bucket}/x")
    (out / "thesis.txt").write_bytes(b"years of work")
    with pytest.raises(ShardError, match=r"thesis\.txt"):
        pack_synthetic(out, **SCENES)
    (out / "thesis.txt").unlink()
    pack_synthetic(out, **SCENES)
    with pytest.raises(ShardError, match="other inputs or settings"):
        pack_synthetic(out, **{**SCENES, "images": 13})
    assert contents(out) == contents(local)


@pytest.mark.parametrize("kind", ["busy", "reset", "dropped"])
def test_uploads_that_fail_for_a_while_are_done_again(bucket: str, local: Path, s3: Any, kind: str) -> None:
    for part in ("000001.tar", "000002.json", "index.json", "pack.json"):
        s3.fail(kind, 2, part=part, method="PUT")
    pack_synthetic(f"{bucket}/x", **SCENES)
    assert not any(fault.left for fault in s3.faults)
    assert contents(RemotePath(f"{bucket}/x")) == contents(local)


def test_a_bucket_without_permission_is_one_line_and_the_same_call_goes_on(bucket: str, local: Path, s3: Any) -> None:
    s3.fail("denied", 1000, part="000002.tar", method="PUT")
    with pytest.raises(
        ShardError, match=r"s3://.*/000002\.tar: cannot be written \(403 AccessDenied\); check"
    ) as caught:
        pack_synthetic(f"{bucket}/x", **SCENES)
    assert "\n" not in str(caught.value)
    assert not (RemotePath(f"{bucket}/x") / "index.json").is_file()
    s3.faults.clear()
    s3.seen.clear()
    pack_synthetic(f"{bucket}/x", **SCENES)
    assert contents(RemotePath(f"{bucket}/x")) == contents(local)
    assert not any(line.startswith("PUT") and "000001.tar" in line for line in s3.seen)


def amn(*arguments: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "amn_dist", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_killed_pack_goes_on_from_the_command_line(
    bucket: str, s3: Any, environment: dict[str, str], wait_for: Any
) -> None:
    command = ("pack", "synthetic", "--images", "40", "--shard-size", "4", "--out", f"{bucket}/x")
    s3.fail("slow", 1, part="000004.tar", method="PUT", seconds=3600)
    process = amn(*command, environment=environment)
    wait_for(lambda: s3.asked("PUT", "000004.tar"), "the fifth shard", process)
    process.kill()
    process.communicate()
    assert not (RemotePath(f"{bucket}/x") / "index.json").is_file()
    first = s3.count("PUT")
    second = amn(*command, environment=environment)
    output = second.communicate(timeout=600)[0]
    assert second.returncode == 0 and "40 samples in 10 shards" in output, output
    assert s3.count("PUT") - first <= 2 * 6 + 3  # of ten shards four were done; stamp, index and summary
    assert "every sample read and decoded" in str(verify(RemotePath(f"{bucket}/x")))
