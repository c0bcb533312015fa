"""Installations and homes that cannot be written, and folders too long for sockets."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from amn_dist import caches
from amn_dist.caches import LONGEST, SOCKETS, USUAL, may_write, private_folder, redirect, socket_folder
from amn_dist.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
READ_ONLY = "mount --make-rprivate / && mount --bind {0} {0} && mount -o remount,ro,bind {0} && "


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the variables is set, and what is set here is forgotten."""
    for name in (*USUAL, SOCKETS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_can_be_written_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    redirect()
    assert not {*USUAL} & {*os.environ} and not list(tmp_path.iterdir())


@pytest.mark.parametrize("home", ["/dev/null", "relative"])
def test_a_home_that_cannot_be_written_is_done_without(
    temporary: Path, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("TORCH_HOME", "/what/the/user/says")
    redirect()
    assert os.environ["TORCH_HOME"] == "/what/the/user/says"
    assert "NUMBA_CACHE_DIR" not in os.environ, "beside the package there is room"
    folder = temporary / f"amn-{os.getuid()}"
    assert Path(os.environ["TRITON_CACHE_DIR"]).parent == folder and folder.stat().st_mode & 0o777 == 0o700


def test_a_private_folder_of_somebody_else_is_not_used(temporary: Path) -> None:
    (temporary / f"amn-{os.getuid()}").symlink_to("/proc")
    with pytest.raises(ConfigError, match="belongs to somebody else; set TMPDIR"):
        private_folder()


def test_sockets_of_a_long_folder_lie_in_a_short_one(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * (LONGEST - 1))
    assert socket_folder() == tempfile.gettempdir()
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * LONGEST)
    assert socket_folder() == "/tmp"
    monkeypatch.setattr(caches, "SHORT", ("/dev/null",))
    with pytest.raises(ConfigError, match=rf"TMPDIR: /x+ has {LONGEST + 1} bytes, sockets need .*; set {SOCKETS} to"):
        socket_folder()
    monkeypatch.setenv(SOCKETS, "/tmp/" + "y" * LONGEST)
    with pytest.raises(ConfigError, match=f"{SOCKETS}: /tmp/y+ has"):
        socket_folder()
    monkeypatch.setenv(SOCKETS, str(tmp_path)[:LONGEST])
    assert socket_folder() == str(tmp_path)[:LONGEST]


def test_a_home_nobody_knows_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    assert may_write("/tmp") and not may_write("~nobody-of-this-name/x") and not may_write("/dev/null/x")


def test_code_compiles_where_neither_package_nor_home_can_be_written(tmp_path: Path) -> None:
    code = (
        "import numpy, amn_dist.ops.walk.cpu, numba, os; from amn_dist.ops.metrics import thresholds;"
        "print(numba.config.CACHE_DIR)"
    )
    home = tmp_path / "home"
    home.mkdir()
    script = READ_ONLY.format(ROOT) + READ_ONLY.format(home) + f"exec {sys.executable} -c '{code}'"
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment.pop("XDG_CACHE_HOME", None)
    ended = subprocess.run(
        ["unshare", "-m", "bash", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    if "unshare" in ended.stderr or "mount" in ended.stderr:
        pytest.skip("making a folder read-only for a process needs root")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == str(tmp_path / f"amn-{os.getuid()}" / "numba_cache_dir")
