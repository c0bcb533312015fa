"""What a stage leaves for machines and for people."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from amn_dist.documents import read_json
from amn_dist.errors import StageError
from amn_dist.telemetry import following, stage_log

SmallDisk = Callable[[Path, str], Path]


def test_figures_are_in_the_event_file_and_in_the_lines(tmp_path: Path) -> None:
    for first in (1, 3):  # the second opens the log again, as a resumed Fit does
        with stage_log(tmp_path, "amn", Console(file=io.StringIO())) as log:
            for step in (first, first + 1):
                log({"step": step, "steps": 4, "total": 1.0 / step, "lr": 0.1, "images_per_s": 9.0})
            log({"warning": "no figure"})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["images_per_s", "lr", "total"]
    curve = {event.step: event.value for event in events.Scalars("total")}
    assert curve == pytest.approx({step: 1.0 / step for step in (1, 2, 3, 4)})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("step") for line in lines] == [1, 2, None, 3, 4, None]
    assert all(line["stage"] == "amn" and line["time"] > 0 for line in lines)


def test_a_stage_without_figures_leaves_no_event_file(tmp_path: Path) -> None:
    with stage_log(tmp_path, "cam", Console(file=io.StringIO())) as log:
        log({"done": True})
    assert not (tmp_path / "tensorboard").exists()


def test_figures_that_are_not_finite_are_none(tmp_path: Path) -> None:
    with stage_log(tmp_path, "amn", Console(file=io.StringIO())) as log:
        log({"step": 1, "steps": 2, "total": 1.0, "gradient_norm": float("inf"), "lr": float("nan")})
    record = read_json((tmp_path / "metrics.jsonl").read_text())
    assert (record["total"], record["gradient_norm"], record["lr"]) == (1.0, None, None)


def test_a_full_disk_leaves_whole_lines_and_names_the_file(tmp_path: Path, small_disk: SmallDisk) -> None:
    full_disk, kept = small_disk(tmp_path / "disk", "64k"), 0
    with (
        pytest.raises(StageError, match=r"amn/metrics.jsonl: cannot be written \(No space left on device\)"),
        stage_log(full_disk / "amn", "amn", Console(file=io.StringIO())) as log,
    ):
        for step in range(1, 10_000):
            log({"step": step, "steps": 10_000, "total": 1.0})
            kept = step
    lines = (full_disk / "amn" / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in lines.splitlines()] == list(range(1, kept + 1))
    assert lines.endswith("\n")
    events = EventAccumulator(str(full_disk / "amn" / "tensorboard"))
    events.Reload()
    assert 0 < len(events.Scalars("total")) <= kept + 1


def test_what_another_process_writes_is_shown(tmp_path: Path, wait_for: Any) -> None:
    screen = io.StringIO()
    with stage_log(tmp_path, "amn", Console(file=screen, width=200)) as log:
        log({"warning": "before"})
        with following(log), (tmp_path / "metrics.jsonl").open("a") as lines:
            lines.write(json.dumps({"warning": "from rank 0"}) + "\n" + "[" * 100_000 + '\n[1]\n{"a"\n')
            lines.flush()
            wait_for(lambda: "from rank 0" in screen.getvalue(), "the first line")
            lines.write(json.dumps({"warning": "and later"}) + "\n")
    said = screen.getvalue().splitlines()
    assert said == ["amn: before", "amn: from rank 0", "amn: and later"]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 6
