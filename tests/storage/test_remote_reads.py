"""Shard sets on S3: what is read, how often it is asked for, and what happens when the storage misbehaves."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amn_dist.errors import ShardError
from amn_dist.shards.index import Index, ShardInfo
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import read_report, write_index, write_shard
from amn_dist.storage import readahead
from amn_dist.storage.aws import read_settings
from amn_dist.storage.cache import Cache
from amn_dist.storage.paths import RemotePath, path_of

CLASSES = ("background", "disc")
SHARDS, SAMPLES, BYTES = 3, 4, 60_000


def rows(number: int, salt: int) -> Iterator[tuple[str, tuple[int, int], dict[str, bytes]]]:
    for i in range(SAMPLES):
        noise = np.random.default_rng((salt, number, i)).bytes(BYTES)
        yield f"k{number}_{i}", (9, 13), {"jpg": noise, "tags": bytes([i % 2])}


def write_set(folder: str | Path, *, salt: int = 0) -> Index:
    """Three shards of incompressible samples."""
    reports = [write_shard(folder, number, rows(number, salt)) for number in range(SHARDS)]
    return write_index(folder, kind="images", classes=CLASSES, reports=reports)


@pytest.fixture
def remote(bucket: str, s3: Any) -> str:
    """A set on S3."""
    write_set(f"{bucket}/a-set")
    s3.seen.clear()
    return f"{bucket}/a-set"


def everything(shards: ShardSet) -> list[bytes]:
    return [shards.read(ordinal, field) for ordinal in range(len(shards)) for field in ("jpg", "tags")]


def asked(s3: Any, part: str) -> int:
    """Requests whose line holds this."""
    return sum(part in line for line in s3.seen)


def test_a_set_is_the_same_on_s3(remote: str, tmp_path: Path) -> None:
    local, there = write_set(tmp_path), ShardSet.open(remote)
    assert there.digest == local.digest and there.url == remote
    expected = everything(ShardSet.open(tmp_path))
    assert everything(there) == expected
    assert everything(pickle.loads(pickle.dumps(there))) == expected
    with ThreadPoolExecutor(8) as pool:
        order = np.random.default_rng(0).integers(0, 12, 60).tolist()
        assert list(pool.map(lambda n: there.read(n, "jpg"), order)) == [expected[2 * n] for n in order]


def test_reads_in_order_come_in_windows_and_the_next_shard_ahead(
    remote: str, s3: Any, monkeypatch: Any, wait_for: Any
) -> None:
    monkeypatch.setattr(readahead, "WINDOW", 100_000)
    shards = ShardSet.open(remote)
    for ordinal in range(SAMPLES):
        shards.read(ordinal, "jpg"), shards.read(ordinal, "tags")
    wait_for(lambda: asked(s3, "000001.tar bytes=0-99999") == 1, "the next shard")
    assert asked(s3, "000000.tar bytes") <= 1 + 3  # one alone, then windows
    assert len(shards.read(SAMPLES, "jpg")) == BYTES
    assert asked(s3, "000001.tar bytes=0-99999") == 1


def test_reads_out_of_order_ask_for_their_bytes_alone(remote: str, s3: Any) -> None:
    shards = ShardSet.open(remote)
    shards.read(2, "jpg")
    offset, size = shards.entry(2).fields["jpg"]
    assert [line.split()[-1] for line in s3.seen if ".tar bytes" in line] == [f"bytes={offset}-{offset + size - 1}"]


@pytest.mark.parametrize("kind", ["busy", "throttled", "reset", "truncated", "dropped"])
def test_what_passes_is_waited_for(remote: str, s3: Any, kind: str) -> None:
    expected = everything(ShardSet.open(remote))
    for part in ("000000.tar", "000001.json", "index.json", "list-type"):
        s3.fail(kind, 2, part=part, method="GET")
    assert everything(ShardSet.open(remote)) == expected
    assert not any(fault.left for fault in s3.faults)


def test_an_answer_that_never_comes_is_asked_for_again(remote: str, s3: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("AMN_STORAGE_TIMEOUT_S", "1")
    s3.fail("slow", 1, part="000000.tar", seconds=5)
    assert len(ShardSet.open(remote).read(0, "jpg")) == BYTES
    assert asked(s3, "000000.tar bytes") == 2


def test_tries_end_with_one_line(remote: str, s3: Any, monkeypatch: Any) -> None:
    shards = ShardSet.open(remote)
    monkeypatch.setenv("AMN_STORAGE_PATIENCE_S", "0.8")
    s3.fail("busy", 1000, part="000002.tar")
    with pytest.raises(ShardError, match=r"s3://.*000002\.tar: cannot be read \(503 SlowDown; \d+ tries in") as caught:
        shards.read(9, "tags")
    assert "the same command goes on" in str(caught.value) and "\n" not in str(caught.value)
    s3.faults.clear()
    assert shards.read(9, "tags") == b"\x01"


@pytest.mark.parametrize(
    ("kind", "answer", "advice"),
    [("denied", "403 AccessDenied", "policy of the bucket"), ("skewed", "403 RequestTimeTooSkewed", "clock of this")],
)
def test_a_refusal_is_told_at_once(remote: str, s3: Any, kind: str, answer: str, advice: str) -> None:
    s3.fail(kind, 1000, part="index.json")
    with pytest.raises(ShardError) as caught:
        ShardSet.open(remote)
    assert f"{remote}/index.json: cannot be read ({answer}); " in str(caught.value) and advice in str(caught.value)
    assert len(s3.seen) == 2  # the list, the index: no second try
    s3.fail(kind, 1000, part="000000.tar", method="PUT")
    with pytest.raises(ShardError, match=r"000000\.tar: cannot be written \(403 "):
        write_set(f"{remote}2")


def test_places_that_are_not_there(bucket: str) -> None:
    with pytest.raises(ShardError, match=r"no index\.json"):
        ShardSet.open(f"{bucket}/nothing")
    with pytest.raises(ShardError, match=r"404 NoSuchBucket\).*AWS_ENDPOINT_URL"):
        ShardSet.open("s3://no-such-bucket-at-all/set")
    with pytest.raises(ShardError, match="names no bucket"):
        ShardSet.open("s3:///set")
    assert not path_of(f"{bucket}/nothing").is_file() and not path_of(f"{bucket}/nothing").is_dir()


def test_a_shard_that_lost_its_end_is_refused(remote: str) -> None:
    shards = ShardSet.open(remote)
    tar = RemotePath(remote) / "000001.tar"
    tar.write_bytes(tar.read_bytes()[: BYTES * 2])
    with pytest.raises(ShardError, match=r"000001\.tar: found \d+ bytes, expected"):
        ShardSet.open(remote)
    with pytest.raises(ShardError, match=r"000001\.tar"):
        shards.read(7, "jpg")


def test_a_set_that_changed_is_told(remote: str) -> None:
    before = ShardSet.open(remote).digest
    write_set(remote, salt=1)
    with pytest.raises(ShardError, match=r"another set than this stage began with.*run the same command again"):
        ShardSet.open(remote, digest=before)


def test_a_cached_shard_is_fetched_once_a_machine(remote: str, s3: Any, tmp_path: Path, monkeypatch: Any) -> None:
    expected = everything(ShardSet.open(remote))
    monkeypatch.setenv("AMN_CACHE", str(tmp_path / "cache"))
    s3.seen.clear()
    assert everything(ShardSet.open(remote)) == expected
    assert asked(s3, ".tar bytes") == SHARDS
    names = {f"{shard.sha256}.tar" for shard in ShardSet.open(remote).index.shards}
    assert {path.name for path in (tmp_path / "cache").iterdir()} == names
    s3.fail("denied", 1000, part=".tar")
    assert everything(ShardSet.open(remote)) == expected


def test_a_changed_set_is_never_served_from_the_cache(remote: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("AMN_CACHE", str(tmp_path / "other"))
    old = ShardSet.open(remote)
    assert old.entry(0).key == "k0_0"
    monkeypatch.setenv("AMN_CACHE", str(tmp_path / "cache"))
    first = everything(ShardSet.open(remote))
    write_set(remote, salt=1)
    second = everything(ShardSet.open(remote))
    monkeypatch.delenv("AMN_CACHE")
    assert second == everything(ShardSet.open(remote)) != first
    with pytest.raises(ShardError, match=r"000000\.tar: its bytes are not those the index lists"):
        old.read(0, "jpg")


def info(content: bytes) -> ShardInfo:
    return ShardInfo(name="000000.tar", count=1, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def test_the_cache_keeps_to_its_bound_and_drops_what_was_used_first(tmp_path: Path) -> None:
    contents = {number: bytes([number]) * 1000 for number in range(5)}
    cache = Cache(tmp_path, 3000)
    for number in (0, 1, 2, 0, 3, 4):
        handle = cache.open(info(contents[number]), [contents[number]], where="here")
        assert handle is not None and os.read(handle, 2000) == contents[number]
        os.close(handle)
        time.sleep(0.01)
    assert {path.stem for path in tmp_path.iterdir()} == {info(contents[n]).sha256 for n in (0, 3, 4)}
    assert cache.open(info(b"x" * 4000), [b"x" * 4000], where="here") is None


KILLED = """
import os, signal
from pathlib import Path
from amn_dist.storage.cache import Cache
from amn_dist.shards.index import ShardInfo
def pieces():
    yield b"half" * 100_000
    os.kill(os.getpid(), signal.SIGKILL)
shard = ShardInfo(name="000000.tar", count=1, bytes=1000, sha256={sha!r})
Cache(Path({folder!r}), 10**6).open(shard, pieces(), where="x")
"""


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path: Path) -> None:
    content = os.urandom(1000)
    sha = info(content).sha256
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", KILLED.format(folder=str(tmp_path), sha=sha)]
    killed = subprocess.run(command, timeout=120, cwd=root, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"{sha}.part"]
    assert Cache(tmp_path, 10**6).open(info(b"other"), [b"other"], where="x") is not None
    handle = Cache(tmp_path, 10**6).open(info(content), [content], where="x")
    assert handle is not None and os.read(handle, 2000) == content
    os.close(handle)
    assert {path.suffix for path in tmp_path.iterdir()} == {".tar"}


def test_a_cache_that_cannot_be_written_is_done_without(remote: str, tmp_path: Path, monkeypatch: Any) -> None:
    expected = everything(ShardSet.open(remote))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AMN_CACHE", str(tmp_path / "file" / "cache"))
    assert everything(ShardSet.open(remote)) == expected


def test_readers_of_a_machine_share_one_fetch(remote: str, s3: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("AMN_CACHE", str(tmp_path))
    sets = [ShardSet.open(remote) for _ in range(4)]
    s3.seen.clear()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: sets[n % 4].read(0, "jpg"), range(32)))
    assert len(set(found)) == 1 and asked(s3, "000000.tar bytes") == 1


def test_reports_of_a_storage_that_refuses_are_not_taken_for_absent(remote: str, s3: Any) -> None:
    report = read_report(remote, 0)
    assert report is not None and report.count == SAMPLES
    assert read_report(remote, 9) is None
    s3.fail("denied", 1, part="000000.json")
    with pytest.raises(ShardError, match="403"):
        read_report(remote, 0)


def test_keys_of_a_profile(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = id\naws_secret_access_key = secret\n")
    (tmp_path / "config").write_text("[profile lab]\nregion = eu-x\nendpoint_url = http://there:9000\n")
    files = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_CONFIG_FILE": str(tmp_path / "config")}
    there = {"endpoint": "http://there:9000"}
    keys = {"access_key_id": "id", "secret_access_key": "secret"}
    assert read_settings({**files, "AWS_PROFILE": "lab"}) == {"region": "eu-x", **there, **keys}
    mine = {**files, "AWS_PROFILE": "lab", "AWS_ACCESS_KEY_ID": "mine", "AWS_REGION": "r"}
    assert read_settings(mine) == {"region": "r", **there}
