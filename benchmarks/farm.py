"""The Ray farm: what a second worker brings, what a shard costs the driver, and whether its memory stays flat.

python -m benchmarks.farm [--shards N]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from amn_dist.config import FarmSection
from amn_dist.farms.farm import Chunk, Farm, Report
from amn_dist.farms.local import LocalFarm
from amn_dist.farms.ray.farm import RayFarm, connect
from amn_dist.interfaces import Needs
from benchmarks.harness import race, write_result
from benchmarks.memory import anonymous_mib


@dataclass(frozen=True)
class SpinLeg:
    """Hashes `turns` times for every sample: work that no cache and no memory bus shares between cores."""

    turns: int
    name: str = "spin"
    needs: Needs = "cpu"

    def open(self) -> Callable[[Chunk, Any], list[str]]:
        return lambda chunk, passed: [self._digest(chunk.shard, n) for n in range(chunk.start, chunk.stop)]

    def _digest(self, shard: int, position: int) -> str:
        name = f"{shard}/{position}".encode()
        return hashlib.pbkdf2_hmac("sha256", name, b"", self.turns).hex() if self.turns else f"{shard}/{position}"


@dataclass(frozen=True)
class Spin:
    """Shards that exist nowhere; the record is the digest of all samples in order."""

    turns: int
    size: int
    chunk: int
    name: str = "spin"

    def chunks(self, number: int) -> Sequence[Chunk]:
        return [Chunk(number, start, min(start + self.chunk, self.size)) for start in range(0, self.size, self.chunk)]

    def legs(self, *, split: bool) -> Sequence[SpinLeg]:
        return (SpinLeg(self.turns),)

    def finish(self, number: int, parts: Sequence[Any]) -> str:
        return hashlib.sha256("".join(text for part in parts for text in part).encode()).hexdigest()


def records(reports: Iterator[Report]) -> dict[int, Any]:
    """What every shard ended with."""
    return {report.shard: report.record for report in reports if report.shard is not None}


def scaling(one: Farm, two: Farm, *, shards: int = 12) -> dict[str, Any]:
    """CPU-bound samples on one worker and on two: seconds, and how much faster two are."""
    task = Spin(turns=20_000, size=64, chunk=8)
    expected = records(LocalFarm().run(task, range(shards)))
    found: dict[str, dict[int, Any]] = {}
    rivals = {name: lambda name=name, farm=farm: found.update({name: records(farm.run(task, range(shards)))})
              for name, farm in {"one": one, "two": two}.items()}  # fmt: skip
    timings = race(rivals, rounds=5)
    assert found["one"] == found["two"] == expected, "digests depend on the workers"
    return {
        "samples": shards * task.size,
        **{name: timing.as_json() for name, timing in timings.items()},
        "speedup": round(timings["one"].median / timings["two"].median, 3),
    }


def overhead(farm: Farm, *, shards: int = 200) -> dict[str, Any]:
    """Seconds a shard costs when its samples cost nothing: as one chunk, and as four chunks that are put together."""
    tasks = {"one_chunk": Spin(turns=0, size=4, chunk=4), "four_chunks": Spin(turns=0, size=4, chunk=1)}
    found: dict[str, int] = {}
    rivals = {name: lambda name=name, task=task: found.update({name: len(records(farm.run(task, range(shards))))})
              for name, task in tasks.items()}  # fmt: skip
    timings = race(rivals, rounds=5)
    assert set(found.values()) == {shards}
    return {name: timing.as_json(per=shards) for name, timing in timings.items()}


def memory(farm: Farm, *, shards: int) -> dict[str, Any]:
    """Resident memory of the driver while very many shards pass, MiB: after the first tenth, at the end, at most."""
    task, seen, samples = Spin(turns=0, size=4, chunk=2), 0, []
    for report in farm.run(task, range(shards)):
        if report.shard is not None:
            seen += 1
            if seen % max(shards // 100, 1) == 0:
                samples.append(round(anonymous_mib(os.getpid()), 1))
    assert seen == shards
    early = samples[len(samples) // 10]
    return {"shards": shards, "early_mib": early, "end_mib": samples[-1], "growth_mib": round(samples[-1] - early, 1),
            "peak_mib": max(samples)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=10_000, help="shards of the memory question")
    arguments = parser.parse_args()
    connect(FarmSection(workers=3), None)
    one, two = RayFarm(FarmSection(workers=1)), RayFarm(FarmSection(workers=2))
    with contextlib.closing(two):
        write_result(
            "farm",
            {
                "scaling": scaling(one, two),
                "overhead_per_shard": overhead(two),
                "driver_memory": memory(two, shards=arguments.shards),
            },
        )


if __name__ == "__main__":
    main()
