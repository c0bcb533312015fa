"""The soak over hosts: its two-minute form, and what it is measured with."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.endurance import Plan
from benchmarks.faulty_s3 import Lottery
from benchmarks.memory import Held, growth
from benchmarks.namespaces import NoNamespaces
from benchmarks.soak_hosts import digests, soak, upload


@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_two_minutes_of_dying_hosts_and_failing_storage_change_no_digest(tmp_path: Path) -> None:
    plan = Plan(minutes=2, every_s=45, images=400, shard_size=20, seed=SEED)
    try:
        record = soak(plan, tmp_path)
    except NoNamespaces as reason:
        pytest.skip(str(reason))
    assert record["runs"] and all(run["equal"] for run in record["runs"])
    assert all(run["most_mib"].keys() == {"host 0", "host 1", "host 2"} for run in record["runs"])
    assert [death["host"] for death in record["deaths"]] == [1, 0]
    assert sum(record["storage"]["faults"].values()) > 0
    assert sum(run["driver_lives"] - 1 for run in record["runs"]) <= 1, "the driver is started again for its own host"
    assert record["memory"]["driver"]["most_mib"] > 0 and record["memory"]["host 2"]["lives"] >= 1


SEED = 7
"""Of the first two who die one is not the head, and the other is."""


def test_who_dies_depends_on_the_seed_alone() -> None:
    names = ("a", "b", "c")
    first, again, other = (list(islice(Plan(seed=seed).victims(names), 50)) for seed in (SEED, SEED, SEED + 1))
    assert first == again != other and set(first) == set(names)
    assert first[:2] == ["b", "a"]


def test_growth_is_one_slope_over_lives_at_levels_of_their_own() -> None:
    slow = [Held(1, at, 100 + at / 60) for at in range(0, 300, 10)]
    late = [Held(2, at, 900 + at / 60) for at in range(400, 600, 10)]
    found = growth([*slow, *late], warm_s=50)
    assert found["mib_per_minute"] == pytest.approx(1) and found["lives"] == 2
    assert found["most_mib"] == pytest.approx(909.8, abs=0.1) and found["watched_s"] == 240 + 140
    loading = [Held(3, at, 10 * at) for at in range(0, 60, 10)]
    assert growth([*loading, *(Held(3, at, 600) for at in range(60, 300, 10))], warm_s=60)["mib_per_minute"] == 0
    assert growth([], warm_s=1) == {"mib_per_minute": 0.0, "most_mib": 0.0, "lives": 0, "watched_s": 0.0}


def test_a_share_of_requests_meets_a_fault_and_all_are_counted(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    lottery = Lottery(1, 0.1, 3, told)
    met = [lottery.take("GET", "/soak/x", {}) for _ in range(2000)]
    faults = [fault for fault in met if fault is not None]
    assert 150 < len(faults) < 250 and {fault.kind for fault in faults} == set(Lottery.KINDS)
    assert json.loads(told.read_text())["requests"] == 2000 and not lottery.seen
    again = Lottery(1, 0.1, 3, told)
    assert [again.take("GET", "/soak/x", {}) is None for _ in range(2000)] == [fault is None for fault in met]


def test_digests_are_those_of_finished_stages(tmp_path: Path) -> None:
    for name, digest in (("cam/index.json", "1"), ("classify/done.json", "2"), ("irn/origin.json", "3")):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text(json.dumps({"digest": digest}))
    assert digests(str(tmp_path / "run")) == {"cam": "1", "classify": "2"}
    (tmp_path / "there/cam").mkdir(parents=True)
    for stage in ("classify", "irn"):
        (tmp_path / "there" / stage).mkdir()
    assert upload(str(tmp_path / "run"), str(tmp_path / "there")) == 3
    assert digests(str(tmp_path / "there")) == {"cam": "1", "classify": "2"}
