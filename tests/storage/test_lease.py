"""One driver at a time behind a URL: who holds a run, who is dead, who is told to wait."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from amn_dist.errors import StageError
from amn_dist.storage import lease
from amn_dist.storage.lease import FREE, LEASE, Holder, holder_bytes, holding, read_holder, this_process
from amn_dist.storage.paths import AnyPath, RemotePath

OTHER = Holder("far", "another boot", 7, "1", "token", 0.0)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "REFRESH_S", 0.1)
    monkeypatch.setattr(lease, "DEAD_S", 60.0)


@pytest.fixture
def soon_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "DEAD_S", 0.6)


@pytest.fixture
def said() -> Iterator[list[str]]:
    yield []


def holder(place: AnyPath) -> Holder | None:
    assert isinstance(place, RemotePath)
    return read_holder((place / LEASE).tagged())


def test_a_run_is_held_and_let_go(place: RemotePath, said: list[str]) -> None:
    for _ in range(2):
        with holding(place, said.append):
            mine = holder(place)
            assert mine is not None and mine.pid == os.getpid() and not mine.died_here
        assert (place / LEASE).read_bytes() == FREE
    with pytest.raises(ZeroDivisionError), holding(place, said.append):
        raise ZeroDivisionError
    assert (place / LEASE).read_bytes() == FREE and said == []


def test_a_run_that_is_worked_on_is_refused(place: RemotePath, said: list[str]) -> None:
    with holding(place, said.append):
        with pytest.raises(StageError, match=rf"another process \(.*, process {os.getpid()}\) is working on this run"):
            holding(place, said.append).__enter__()
        assert len(said) == 1 and re.search(r"worked on this run \d+ s ago; waiting up to", said[0])
        mine = holder(place)
        assert mine is not None and mine.pid == os.getpid()


def test_a_holder_on_another_machine_is_dead_when_nothing_is_heard_of_it(
    place: RemotePath, said: list[str], soon_dead: None
) -> None:
    (place / LEASE).write_bytes(holder_bytes(replace(OTHER, time=time.time() - 1200)))
    with holding(place, said.append):
        assert holder(place) != OTHER
    assert len(said) == 1
    silent = re.match(rf"{place}: another process \(far, process 7\) worked on this run (\d+) s ago", said[0])
    assert silent and 1200 <= int(silent[1]) < 1800


def test_a_process_that_died_on_this_machine_is_followed_at_once(place: RemotePath, said: list[str]) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    started = {"dead": "123", "number given again": "1"}
    for pid in (dead.pid, os.getpid()):
        (place / LEASE).write_bytes(holder_bytes(replace(this_process(), pid=pid, started=started["dead"])))
        with holding(place, said.append):
            assert holder(place) is not None
    assert said == []


def test_who_was_silent_too_long_ends_when_another_has_the_run(place: RemotePath, said: list[str]) -> None:
    with (
        pytest.raises(StageError, match=r"far, process 7 has taken this run over, since nothing was heard"),
        holding(place, said.append),
    ):
        (place / LEASE).write_bytes(holder_bytes(OTHER))
        time.sleep(60)
    assert holder(place) == OTHER


@pytest.mark.parametrize(
    "content",
    [b"[1", b"[" * 100_000, b"\xff", b'{"pid": 1}', holder_bytes(OTHER).replace(b'"pid":7', b'"pid":"../7"'),
     holder_bytes(OTHER).replace(b'"pid":7', b'"pid":true'),
     holder_bytes(OTHER).replace(b'"pid":7', b'"pid":8,"pid":7'),
     holder_bytes(OTHER).replace(b'"time":0.0', b'"time":NaN')],
)  # fmt: skip
def test_a_lease_that_cannot_be_read_holds_nobody_back(place: RemotePath, said: list[str], content: bytes) -> None:
    (place / LEASE).write_bytes(content)
    assert holder(place) is None
    with holding(place, said.append):
        assert holder(place) is not None


def test_a_folder_is_locked_by_the_kernel(tmp_path: Path, said: list[str]) -> None:
    with holding(tmp_path / "run", said.append):
        with pytest.raises(StageError, match="another process is working on this run"):
            holding(tmp_path / "run", said.append).__enter__()
        assert not (tmp_path / "run" / LEASE).exists()
