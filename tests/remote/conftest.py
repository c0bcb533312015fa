"""A storage in memory, and machines to work on it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from amn_dist.remote.scratch import SCRATCH
from amn_dist.shards.paths import RemotePath


@pytest.fixture
def place() -> RemotePath:
    """An empty folder behind a URL."""
    return RemotePath(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Moves this process to the machine of a name, as far as local folders go; returns its folder."""

    def move(name: str) -> Path:
        monkeypatch.setenv(SCRATCH, str(tmp_path / name))
        return tmp_path / name

    move("first")
    return move
