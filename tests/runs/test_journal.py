"""The log of a stage behind a URL: nothing is lost between machines and between writers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from amn_dist.runs import journal as journals
from amn_dist.runs.journal import Journal, journal
from amn_dist.storage.folders import files_below
from amn_dist.storage.paths import RemotePath
from amn_dist.telemetry import METRICS, following, stage_log

Machine = Callable[[str], Path]


def steps(place: RemotePath | Path) -> list[int]:
    """The steps in a log."""
    return [json.loads(line)["step"] for line in (place / METRICS).read_text().splitlines()]


def write(kept: Journal, *numbers: int) -> None:
    with stage_log(kept.folder, "amn", Console(file=io.StringIO())) as log:
        for step in numbers:
            log({"step": step, "steps": 9, "total": 1.0})


def test_earlier_lines_are_kept_on_another_machine(place: RemotePath, machine: Machine) -> None:
    with journal(place) as kept:
        write(kept, 1, 2)
    machine("second")
    with pytest.raises(KeyboardInterrupt), journal(place) as kept:
        assert steps(kept.folder) == [1, 2]
        write(kept, 3)
        raise KeyboardInterrupt
    machine("first")
    with journal(place) as kept:
        write(kept, 4)
    assert steps(place) == [1, 2, 3, 4]
    assert sum(name.startswith("tensorboard/events") for name in files_below(place)) == 3


def test_a_line_that_is_not_whole_waits(place: RemotePath, machine: Machine) -> None:
    with journal(place) as kept:
        write(kept, 1)
        with (kept.folder / METRICS).open("a") as lines:
            lines.write('{"step": ')
            lines.flush()
            kept.push()
            assert steps(place) == [1]
            lines.write("2}\n")
    assert steps(place) == [1, 2]


def test_a_growing_log_is_copied_now_and_then(
    place: RemotePath, machine: Machine, monkeypatch: pytest.MonkeyPatch, wait_for: Any
) -> None:
    monkeypatch.setattr(journals, "COPY_S", 0.01)
    with journal(place) as kept:
        write(kept, 1)
        wait_for(lambda: (place / METRICS).is_file() and steps(place) == [1], "a copy of the first step", seconds=60)
        write(kept, 2)
        wait_for(lambda: steps(place) == [1, 2], "a copy of both steps", seconds=60)


def test_two_writers_by_turns_keep_each_others_lines(place: RemotePath, machine: Machine) -> None:
    screen = io.StringIO()
    with journal(place) as driver, stage_log(driver.folder, "amn", Console(file=screen, width=200)) as log:
        log({"warning": "begun"})
        for attempt in (1, 2):
            with (
                driver.handed_over(),
                following(log, bring=driver.try_pull, every_s=0.01),
                journal(place, "member") as member,
                stage_log(member.folder, "amn", Console(quiet=True)) as theirs,
            ):
                theirs({"warning": f"attempt {attempt}"})
                driver.push()  # as its own clock may tell it to
            log({"warning": f"broke {attempt}"})
    said = [json.loads(line)["warning"] for line in (place / METRICS).read_text().splitlines()]
    assert said == ["begun", "attempt 1", "broke 1", "attempt 2", "broke 2"]
    assert screen.getvalue().split("amn: ")[1:] == [f"{text}\n" for text in said]


def test_a_log_in_a_folder_is_written_there(tmp_path: Path) -> None:
    with journal(tmp_path) as kept, kept.handed_over():
        kept.push()
        write(kept, 1)
    assert kept.folder == tmp_path and steps(tmp_path) == [1]
