"""The soak, small: killed and resumed, every sample once; and its counting notices what is lost or doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from amn_dist.shards.shardset import ShardSet
from benchmarks.soak import CLASSES, Phase, counted, followed, in_order, key, listed, sources, verified
from data_shards.pack import pack


def test_counts_notice_what_is_lost_doubled_or_renamed() -> None:
    keys = [key(n) for n in range(50)]
    expected = counted(keys)
    assert counted(reversed(keys)) == expected
    assert counted(keys[:20]).join(counted(keys[20:])) == expected
    for wrong in (keys[1:], [*keys, keys[0]], [*keys[1:], keys[1]], [*keys[1:], "other"]):
        assert counted(wrong) != expected


def test_every_sample_is_packed_verified_and_ordered_once(tmp_path: Path) -> None:
    pack(sources(600), tmp_path / "set", classes=CLASSES, shard_size=100, skip_bad=False)
    expected = counted(key(n) for n in range(600))
    assert counted(listed(tmp_path / "set")) == expected == counted(in_order(ShardSet.open(tmp_path / "set")))
    assert verified(tmp_path / "set")[1] == expected


def test_a_killed_pack_goes_on(tmp_path: Path) -> None:
    words = ["--member", "pack", "--images", "400", "--shard-size", "20", "--folder", str(tmp_path)]
    first, second = (followed(words, tmp_path / "set", kill_at=at) for at in (3, None))
    assert first.killed and first.shards >= 3 and first.shards + second.shards == 20
    assert counted(listed(tmp_path / "set")) == counted(key(n) for n in range(400))


def test_growth_is_that_of_the_middle() -> None:
    held = ((0, 5.0), *((done, 100 + done / 10) for done in range(1, 101)))
    found = Phase(10.0, 100, held, False).as_json(10)
    assert found["growth_mib"] == pytest.approx(6.9, abs=0.2) and found["samples_per_s"] == 100
    assert found["growth_mib_per_million"] == pytest.approx(1e4, rel=0.01)
