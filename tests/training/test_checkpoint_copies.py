"""Checkpoints between a local folder and a URL: which one counts, which ones stay, what a stale folder is worth."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amn_dist.storage.folders import files_below
from amn_dist.storage.paths import AnyPath, RemotePath
from amn_dist.storage.scratch import scratch
from amn_dist.training import checkpoint_copies as mirror
from amn_dist.training.checkpoint_copies import fetch, publish, workplace
from amn_dist.training.checkpoints import STATE, complete
from amn_dist.training.loop import CHECKPOINTS, MODEL, STOP

Machine = Callable[[str], Path]


def checkpoint(folder: Path, step: int, content: bytes = b"weights") -> Path:
    """A finished checkpoint of a step."""
    path = folder / f"{step:06d}"
    path.mkdir(parents=True)
    (path / "snapshot.pt").write_bytes(content)
    state = {"step": step, "files": {"snapshot.pt": len(content)}, "mark": secrets.token_hex(8)}
    (path / STATE).write_text(json.dumps(state))
    return path


def names(folder: AnyPath) -> list[str]:
    return [path.name for path in complete(folder)]


def test_the_newest_two_stay_and_the_newest_comes_back(place: RemotePath, tmp_path: Path) -> None:
    for step in (2, 4, 6):
        publish(checkpoint(tmp_path / "a", step, b"%d" % step), place)
    assert names(place) == ["000006", "000004"] and "000002/snapshot.pt" not in files_below(place)
    fetch(place, tmp_path / "b")
    assert names(tmp_path / "b") == ["000006"]
    for name in ("snapshot.pt", STATE):
        assert (tmp_path / "b" / "000006" / name).read_bytes() == (tmp_path / "a" / "000006" / name).read_bytes()


def test_what_was_not_copied_whole_does_not_count_and_goes(place: RemotePath, tmp_path: Path) -> None:
    for step in (2, 4, 6):
        publish(checkpoint(tmp_path / "a", step), place)
    (place / "000006" / STATE).unlink()
    (place / "000004" / "snapshot.pt").write_bytes(b"short")
    publish(checkpoint(tmp_path / "a", 3), place)
    assert names(place) == ["000003"]  # what is behind the newest was found wanting
    (place / "000004" / "snapshot.pt").write_bytes(b"half")
    fetch(place, tmp_path / "b")
    assert names(tmp_path / "b") == ["000003"]


def test_a_checkpoint_done_again_counts_when_it_is_whole_again(place: RemotePath, tmp_path: Path) -> None:
    publish(checkpoint(tmp_path / "a", 2, b"first"), place)
    publish(checkpoint(tmp_path / "b", 2, b"second"), place)
    fetch(place, tmp_path / "a")
    assert (tmp_path / "a" / "000002" / "snapshot.pt").read_bytes() == b"second"


def test_the_url_decides_over_a_stale_folder(place: RemotePath, tmp_path: Path) -> None:
    publish(checkpoint(tmp_path / "a", 4, b"of this life"), place)
    checkpoint(tmp_path / "b", 4, b"of a life ago")
    checkpoint(tmp_path / "b", 8)
    (tmp_path / "b" / ".tmp-000009").mkdir()
    assert fetch(place, tmp_path / "b") == ["000008"]
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["000004"]
    assert (tmp_path / "b" / "000004" / "snapshot.pt").read_bytes() == b"of this life"
    before = (tmp_path / "b" / "000004").stat()
    fetch(place, tmp_path / "b")  # the same one is not fetched again
    assert (tmp_path / "b" / "000004").stat() == before
    fetch(RemotePath(f"{place}-empty"), tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []


def test_a_fit_moves_to_another_machine(place: RemotePath, machine: Machine) -> None:
    with pytest.raises(KeyboardInterrupt), workplace(place, first=True) as work:
        work.saved(checkpoint(work.folder / CHECKPOINTS, 2))
        work.saved(checkpoint(work.folder / CHECKPOINTS, 4))
        checkpoint(work.folder / CHECKPOINTS, 6)  # never handed over
        raise KeyboardInterrupt
    assert names(place / CHECKPOINTS) == ["000004", "000002"] and not (place / MODEL).is_file()
    machine("second")
    with workplace(place, first=False) as second:
        assert names(second.folder / CHECKPOINTS) == ["000004"]
    with workplace(place, first=True) as work:
        assert work.folder == second.folder
        (work.folder / MODEL).write_bytes(b"learned")
    assert (place / MODEL).read_bytes() == b"learned" and not work.folder.exists()
    machine("first")
    told: list[str] = []
    with workplace(place, first=True, tell=told.append) as work:
        assert len(told) == 1 and "checkpoint of step 6 never reached" in told[0]
        assert names(work.folder / CHECKPOINTS) == ["000004"]
        (work.folder / MODEL).write_bytes(b"learned")


def test_a_fit_in_a_folder_works_there(tmp_path: Path) -> None:
    with workplace(tmp_path, first=True) as work:
        work.saved(checkpoint(tmp_path / CHECKPOINTS, 2))
    assert work.folder == tmp_path


def test_a_wish_to_stop_is_brought(
    place: RemotePath, machine: Machine, monkeypatch: pytest.MonkeyPatch, wait_for: Any
) -> None:
    monkeypatch.setattr(mirror, "LOOK_S", 0.01)
    (scratch(place, "fit") / STOP).touch()  # of an earlier life
    with workplace(place, first=True) as work:
        (work.folder / MODEL).touch()
        assert not (work.folder / STOP).exists()
        (place / STOP).touch()
        wait_for((work.folder / STOP).exists, "the wish in the local folder")
