"""Files that are there whole or not at all, whoever writes them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from amn_dist.errors import ShardError
from amn_dist.models.weights import save_network
from amn_dist.storage.atomic import UNFINISHED, atomic_file, clean_unfinished, commit, commit_json
from amn_dist.storage.paths import AnyPath, RemotePath

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with atomic_file(path, durable=durable) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old" and UNFINISHED in temporary.name and temporary.parent == tmp_path
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["x"]


def test_after_an_error_the_old_one_stays_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), atomic_file(path):
        pass  # nothing was written
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]


def test_a_temporary_of_another_name(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "x", temporary=tmp_path / ".part-x") as temporary:
        temporary.write_bytes(b"new")
        assert os.listdir(tmp_path) == [".part-x"]
    assert os.listdir(tmp_path) == ["x"]


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "x") as first, atomic_file(tmp_path / "x") as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert (tmp_path / "x").read_bytes() == b"first"


def test_bytes_and_trees(tmp_path: Path, place: RemotePath) -> None:
    folders: tuple[AnyPath, ...] = (tmp_path, place)
    for folder in folders:
        commit(folder / "a" / "x", b"bytes")
        commit_json(folder / "y", {"b": 1, "a": [2]})
        assert (folder / "a" / "x").read_bytes() == b"bytes"
        assert (folder / "y").read_bytes() == b'{"a":[2],"b":1}\n'


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder" / "full").mkdir(parents=True)
    for path in (tmp_path / "folder", tmp_path / "folder" / "full"):
        (tmp_path / "folder" / "full" / "stays").touch()
        with pytest.raises(ShardError, match=rf"^{path}: cannot be written \(.*directory.*\); make room or access"):
            commit(path, b"x")
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(tmp_path / "folder") == ["full"]


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path, place: RemotePath) -> None:
    code = (
        "import os, signal; from pathlib import Path; from amn_dist.storage.atomic import atomic_file\n"
        f"with atomic_file(Path({str(tmp_path / 'x')!r})) as t: t.touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (tmp_path / "y").touch()
    left = [name for name in os.listdir(tmp_path) if name != "y"]
    assert len(left) == 1 and left[0].startswith(f"x{UNFINISHED}")
    assert clean_unfinished(tmp_path) == left and os.listdir(tmp_path) == ["y"] and clean_unfinished(place) == []


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_others_may_read_what_the_umask_lets_them(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        commit(tmp_path / "bytes", b"x")
        save_network(torch.nn.Linear(1, 1), tmp_path / "weights.safetensors")
        with atomic_file(tmp_path / "private") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}
