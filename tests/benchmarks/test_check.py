"""Kept results against thresholds, and the command that runs benchmarks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amn_dist.commands.bench import questions
from amn_dist.errors import ConfigError
from benchmarks.check import THRESHOLDS, Threshold, check, figures, read_thresholds, shortfalls

ROOT = Path(__file__).resolve().parents[2]
RESULT = {"speedup": 2.5, "rows": [{"ratio": 3.0}, {"ratio": 1.0}], "sizes": {"94x125 K=2": {"labels": 10}}, "ok": True}


def threshold(rule: Any, path: str, value: Any) -> Threshold:
    return Threshold("walk", "walk", rule, path, value)


def amn_bench(*words: str, results: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BENCH_RESULTS": str(results), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "amn_dist", "bench", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("speedup", {"speedup": 2.5}),
        ("rows.*.ratio", {"rows.0.ratio": 3.0, "rows.1.ratio": 1.0}),
        ("rows.1.ratio", {"rows.1.ratio": 1.0}),
        ("sizes.*.labels", {"sizes.94x125 K=2.labels": 10}),
        ("sizes.94x125 K=2.labels", {"sizes.94x125 K=2.labels": 10}),
        ("speedup.more", {}),
        ("rows.2.ratio", {}),
        ("gone", {}),
    ],
)
def test_a_path_stands_for_figures(path: str, found: dict[str, Any]) -> None:
    assert dict(figures(RESULT, path)) == found


@pytest.mark.parametrize(
    ("rule", "path", "value", "short"),
    [
        ("least", "speedup", 2.5, 0),
        ("least", "speedup", 2.6, 1),
        ("most", "speedup", 2.4, 1),
        ("least", "rows.*.ratio", 2, 1),
        ("least", "rows.*.ratio", 4, 2),
        ("exact", "sizes.*.labels", 10, 0),
        ("exact", "sizes.*.labels", 11, 1),
        ("exact", "ok", True, 0),
        ("exact", "ok", 1, 1),
        ("least", "ok", 0, 1),
        ("least", "gone.*.ratio", 0, 1),
    ],
)
def test_a_figure_that_falls_short_is_one_line(rule: str, path: str, value: Any, short: int) -> None:
    lines = shortfalls([threshold(rule, path, value)], RESULT)
    assert len(lines) == short
    assert all(line.startswith("walk: walk.json: ") and "expected" in line for line in lines)


def test_no_number_is_never_enough() -> None:
    for found in (float("nan"), None, "3"):
        assert not threshold("least", "x", 1).holds(found) and not threshold("most", "x", 1).holds(found)


def test_absent_results_are_told_apart_from_short_ones(tmp_path: Path) -> None:
    (tmp_path / "walk.json").write_text(json.dumps(RESULT))
    wanted = (threshold("least", "speedup", 3), Threshold("cam", "cam_21", "least", "speedup", 1))
    lines, absent, compared = check(wanted, tmp_path, [])
    assert len(lines) == 1 and "found 2.5, expected at least 3" in lines[0] and compared == 1
    assert absent == ["cam: no cam_21.json, run `amn bench cam`"]
    assert check(wanted, tmp_path, ["cam"])[1:] == (absent, 0)
    with pytest.raises(ConfigError, match="farm: no thresholds"):
        check(wanted, tmp_path, ["farm"])
    (tmp_path / "cam_21.json").write_text("{")
    with pytest.raises(ConfigError, match=r"cam_21\.json: cannot be read as JSON"):
        check(wanted, tmp_path, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- walk", "expected results by name"),
        ("walk: {least: {a: 1}}", "expected benchmark"),
        ("walk: {benchmark: walk, larger: {a: 1}}", "least, most, exact"),
        ("walk: {benchmark: walk, least: {a: fast}}", "least: a: found 'fast', expected a number"),
        ("walk: [", "cannot be read"),
    ],
)
def test_thresholds_nobody_understands_are_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_thresholds(tmp_path / "t.yaml")


def test_every_threshold_is_of_a_benchmark_that_writes_it() -> None:
    known = questions(ROOT / "benchmarks")
    wanted = read_thresholds(THRESHOLDS)
    assert {one.benchmark for one in wanted} <= known.keys()
    for one in wanted:
        assert one.result.startswith(one.benchmark)
    assert all(question.endswith(("?", ".")) or re.search(r"[.:?] ", question) for question in known.values())


def test_the_command_lists_checks_and_refuses(tmp_path: Path) -> None:
    listed = amn_bench(results=tmp_path, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    lines = dict(line.split(maxsplit=1) for line in listed.stdout.splitlines())
    assert lines["walk"].startswith("How much faster") and "harness" not in lines and "check" not in lines
    (tmp_path / "merge.json").write_text(json.dumps({"rows": [{"speedup": 1.0, "largest_difference": 0.0}]}))
    short = amn_bench("merge", "--check", results=tmp_path, cwd=tmp_path)
    assert short.returncode == 1 and short.stdout.splitlines() == [
        "merge: merge.json: rows.0.speedup: found 1.0, expected at least 1.5",
        "2 thresholds compared; not measured here: 0 results",
    ]
    wrong = amn_bench("marge", results=tmp_path, cwd=tmp_path)
    assert wrong.returncode == 2 and "amn bench marge: no such benchmark" in wrong.stderr


def test_a_benchmark_is_run_with_its_own_options_and_checked(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()  # the user's own folder of that name is no rival
    done = amn_bench(
        *("scale", "--cores-alone", "--link-gbit", "4", "--check", "--run"), results=tmp_path, cwd=tmp_path
    )
    record = json.loads((tmp_path / "scale.json").read_text())
    assert record["assumptions"]["cpu"]["bytes_per_s"] == 4e9 / 8 and "--link-gbit 4" in record["command"], done.stderr
    # Without train.json beside it nothing was compared.
    assert done.returncode == 1 and "scale: scale.json: one_to_two.*.off_by: not there" in done.stdout
