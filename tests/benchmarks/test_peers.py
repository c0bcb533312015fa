"""The race against what others use, small: results are equal, and what is told of a rival is what it does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rivals import packages
from benchmarks.rivals.reading import counted, drawn, installed, measured, noted, order
from benchmarks.rivals.training import compared

OURS = "amn-dist"
SEEN = {"missing": 0, "again": 0}


@pytest.fixture(scope="module")
def readers() -> dict[str, Any]:
    """The record of a small race of readers; those of torchdata are in it where a benchmark has installed it."""
    packages.find()
    return measured(quick=True, rounds=1)


def test_readers_cut_the_same_crops_and_every_sample_comes_once(readers: dict[str, Any]) -> None:
    assert readers["readers"].keys() == set(installed()) >= {OURS, "webdataset"}
    for name, row in readers["readers"].items():
        assert row["one_rank"] == {**SEEN, "steps": [11]}, name


def test_ours_is_cut_alike_for_any_workers_and_ranks_and_goes_on_where_it_was_killed(readers: dict[str, Any]) -> None:
    row = readers["readers"][OURS]
    assert row["two_ranks"] == {**SEEN, "steps": [11, 11]}
    assert row["orders_of_1_2_3_workers"] == 1 and row["same_batches_on_two_ranks"]
    assert row["killed"]["same_order"] and row["killed"]["same_order_on_another_worker"]


def test_webdataset_splits_shards_so_that_order_and_steps_depend_on_who_reads(readers: dict[str, Any]) -> None:
    row = readers["readers"]["webdataset"]
    assert row["orders_of_1_2_3_workers"] == 3 and not row["same_batches_on_two_ranks"]
    assert len(set(row["two_ranks"]["steps"])) == 2


def test_what_is_lost_or_comes_again_is_counted(tmp_path: Path) -> None:
    reading = drawn(tmp_path)
    steps = order(OURS, reading)
    assert counted(reading, [steps[1:]]) == {"missing": 4, "again": 0, "steps": [10]}
    assert counted(reading, [steps, steps[:1]]) == {"missing": 0, "again": 4, "steps": [11, 1]}


def test_a_reader_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match="amn-dist: ended with 1"):
        noted(OURS, replace(drawn(tmp_path), folder="nowhere"), tmp_path / "notes", None)


def test_losses_apart_are_refused() -> None:
    expected = [3.0, 2.0, 1.0]
    assert compared({"ours": expected, "other": [3.0, 2.0, 1.0 + 1e-5]}) == {"ours": 0, "other": pytest.approx(1e-5)}
    with pytest.raises(AssertionError, match="losses differ"):
        compared({"ours": expected, "other": [3.0, 2.0, 1.01]})
    with pytest.raises(AssertionError, match="nothing is learned"):
        compared({"ours": [1.0, 1.0], "other": [1.0, 1.0]})


@pytest.mark.parametrize("part", ["crf", pytest.param("training", marks=pytest.mark.cluster)])
def test_a_part_runs_alone(part: str) -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "--quick", "--part", part]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout).values()
    if part == "crf":
        assert all(OURS in row and "pydensecrf2" in row for row in record["labels"].values())
    else:
        apart = {name: row["loss_apart"] for name, row in record["networks"]["small"]["engines"].items()}
        assert {"DDP", "FSDP2", "DeepSpeed ZeRO-2"} <= apart.keys() and max(apart.values()) <= record["tolerance"]
        resumed = {name: row["resumed_equal"] for name, row in record["networks"]["small"]["engines"].items()}
        assert [name for name, equal in resumed.items() if not equal] == ["DDP"]


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from benchmarks.rivals.deaths import Deaths

    with closing(Deaths(tmp_path_factory.mktemp("deaths"), quick=True)) as cluster:
        yield cluster


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("farm", [OURS, "Ray Data"])
def test_a_farm_is_struck_and_what_is_done_again_is_counted(deaths: Any, farm: str) -> None:
    struck = {name: deaths.struck(farm, name) for name in ("nobody", "worker", "driver")}
    assert struck["nobody"]["whole"] and struck["nobody"]["samples_again"] == 0
    if farm == OURS:
        assert all(row["whole"] for row in struck.values()), struck
        assert struck["worker"]["samples_again"] < deaths.samples // 2, struck


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_data_writes_the_bytes_of_our_farm(tmp_path: Path) -> None:
    import ray

    from amn_dist.config import FarmSection
    from amn_dist.farms.ray.farm import connect
    from benchmarks.rivals.farming import prices, speeds
    from benchmarks.rivals.farms import CORES

    connect(FarmSection(workers=3 * CORES), None)
    try:
        assert set(speeds(tmp_path, quick=True, rounds=1)["farms"]) >= {"amn-dist, one pool", "Ray Data, two pools"}
        assert prices(quick=True, rounds=1)["shards"] == 20
    finally:
        ray.shutdown()
