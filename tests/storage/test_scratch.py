"""Local folders: the same for the same place, nobody else's."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from amn_dist.errors import ConfigError
from amn_dist.storage.paths import RemotePath
from amn_dist.storage.scratch import SCRATCH, exclusive, scratch


def test_a_place_has_one_folder_a_machine(place: RemotePath, machine: Callable[[str], Path]) -> None:
    first = scratch(place / "amn", "fit")
    assert first.is_relative_to(machine("first")) and first == scratch(place / "amn", "fit")
    others = {scratch(place / "irn", "fit"), scratch(place / "amn", "log"), scratch(place / "x" / "amn", "fit")}
    assert len(others | {first}) == 4
    machine("second")
    assert scratch(place / "amn", "fit") != first


def test_without_a_setting_it_is_a_private_folder(place: RemotePath, tmp_path: Path, monkeypatch: object) -> None:
    monkeypatch.delenv(SCRATCH, raising=False)  # type: ignore[attr-defined]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # type: ignore[attr-defined]
    root = scratch(place, "fit").parents[1]
    assert root.parent == tmp_path and root.stat().st_mode & 0o777 == 0o700
    (tmp_path / "elsewhere").mkdir()
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir()
    root.rmdir()
    root.symlink_to(tmp_path / "elsewhere")  # as anybody could in a folder that all may write
    with pytest.raises(ConfigError, match=f"belongs to somebody else; set {SCRATCH}"):
        scratch(place, "fit")


def test_a_folder_that_cannot_be_made_is_told(place: RemotePath, machine: Callable[[str], Path]) -> None:
    machine("first").touch()
    with pytest.raises(ConfigError, match=f"cannot be made .*set {SCRATCH} to a local folder"):
        scratch(place, "fit")


def test_one_at_a_time(place: RemotePath, machine: Callable[[str], Path]) -> None:
    folder, seen = scratch(place, "fit"), []

    def work() -> None:
        with exclusive(folder):
            seen.append(sorted(os.listdir(folder)))
            (folder / "busy").touch()
            (folder / "busy").unlink()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [[]] * 8
