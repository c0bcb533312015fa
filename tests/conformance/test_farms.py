"""Every farm: each shard once, failures named, dead workers replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from amn_dist.config import Farm as FarmSection
from amn_dist.errors import ShardError, StageError
from amn_dist.farms.farm import Farm
from amn_dist.farms.local import LocalFarm


@dataclass(frozen=True)
class Note:
    """Writes one file a shard and says how often the task was opened in its process."""

    folder: str
    bad: frozenset[int] = frozenset()
    deadly: int | None = None
    name: str = "note"

    def open(self) -> Callable[[int], int]:
        def work(number: int) -> int:
            if number in self.bad:
                raise ShardError(f"shard {number} is bad on purpose")
            scar = Path(self.folder) / "scar"
            if number == self.deadly and not scar.exists():
                scar.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            (Path(self.folder) / f"{number}.txt").write_text("x")
            return number * number

        return work


@pytest.fixture(scope="module", params=["local", "ray"])
def farm(request: pytest.FixtureRequest) -> Iterator[Farm]:
    if request.param == "local":
        yield LocalFarm()
        return
    from amn_dist.farms.ray import RayFarm

    running = RayFarm(FarmSection(workers=2))
    yield running
    running.close()


def test_every_shard_is_done_once(farm: Farm, tmp_path: Path) -> None:
    records = list(farm.run(Note(str(tmp_path)), range(9)))
    assert sorted(records) == [(number, number * number) for number in range(9)]
    assert len(list(tmp_path.iterdir())) == 9


def test_no_shards_is_no_work(farm: Farm, tmp_path: Path) -> None:
    assert list(farm.run(Note(str(tmp_path)), [])) == []


def test_failed_shards_are_named_after_the_others_are_done(farm: Farm, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"2 shard\(s\) failed \(1, 4\).*shard 1 is bad on purpose"):
        list(farm.run(Note(str(tmp_path), bad=frozenset({1, 4})), range(6)))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["0", "2", "3", "5"]


def test_a_killed_worker_is_replaced_and_its_shard_done_again(farm: Farm, tmp_path: Path) -> None:
    if isinstance(farm, LocalFarm):
        pytest.skip("the local farm is this process")
    records = list(farm.run(Note(str(tmp_path), deadly=3), range(8)))
    assert sorted(number for number, _ in records) == list(range(8))
    assert len(list(tmp_path.glob("*.txt"))) == 8
