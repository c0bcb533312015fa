"""`amn bench`: what can be measured, what was measured, and whether it is enough."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_benchmark_is_listed_with_its_question(amn: Callable[..., Any]) -> None:
    done = amn("bench")
    listed = dict(line.split(None, 1) for line in done.out.splitlines())
    runnable = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def main(" in path.read_text()} - {"check"}
    assert (
        done.code == 0
        and listed.keys() == runnable
        and all(text.rstrip().endswith((".", "?")) for text in listed.values())
    )


def bench(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A benchmark is a process of its own, whose output passes by this one's."""
    command = [sys.executable, "-m", "amn_dist", "bench", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_a_benchmark_runs_where_the_user_is_and_gets_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "seeds.py").write_text("raise SystemExit('not ours')")
    done = bench("seeds", "nowhere", cwd=tmp_path)
    assert done.returncode == 1 and "'nowhere/config.yaml'" in done.stderr and "not ours" not in done.stderr


def test_kept_results_reach_their_thresholds(tmp_path: Path) -> None:
    done = bench("--check", "crf", cwd=tmp_path)
    assert done.returncode == 0, done
    assert re.fullmatch(r"[1-9][0-9]* thresholds compared; not measured here: 0 results\n", done.stdout), done


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nix",), "amn bench nix: no such benchmark; found "),
        (("--run",), "expected `amn bench NAME --check --run`"),
        (("crf", "--run"), "expected `amn bench NAME --check --run`"),
        (("all", "x", "y"), "amn bench all: found x y; arguments go to one benchmark, name it"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], told: str, mistake: Callable[..., str]) -> None:
    assert told in mistake("bench", *words)
