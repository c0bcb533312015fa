"""`amn doctor --try`: every stage in a minute, or what is wrong in one line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amn_dist.commands.doctor.trial import try_out


def test_a_machine_that_works_is_told_so(
    amn: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = amn("doctor", "--try")
    (line,) = [line for line in done.out.splitlines() if "trial run" in line]
    assert done.code == 0 and line.split()[:1] == ["ok"] and "every stage over 8 drawn scenes in" in line
    assert not [path for path in tmp_path.iterdir() if (path / "run").exists()]


@pytest.mark.parametrize("place", ["nowhere", "file"])
def test_a_machine_without_room_for_it_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / place))
    check = try_out()
    assert not check.ok and check.needed and str(tmp_path / place) in check.found and len(check.found.splitlines()) == 1
    assert "amn --debug doctor --try shows where" in check.advice
