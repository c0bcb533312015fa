"""Ray Data in the place of our farm: the same tasks, a row a shard, an actor pool for every leg.

A row is a whole shard, which the last pool writes: rows of chunks would have to be put together by a shuffle of all.
With `kept`, rows of finished shards are written there and Ray Data's own checkpoint leaves them out of the next call.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray

from amn_dist.farms.farm import Leg, Task

Rows = dict[str, np.ndarray]
"""Of a block: `id`, positions of shards; from the second pool on `passed`, pickled results of the leg before."""


class LegWork:
    """An actor of a pool: takes shards through a leg, chunk by chunk; after the last leg it writes them."""

    def __init__(self, task: Task, numbers: Sequence[int], leg: Leg, *, last: bool) -> None:
        self.task, self.numbers, self.last = task, numbers, last
        self.work = leg.open()

    def __call__(self, rows: Rows) -> Rows:
        earlier = rows.get("passed", [None] * len(rows["id"]))
        results = [self._shard(self.numbers[place], passed) for place, passed in zip(rows["id"], earlier, strict=True)]
        passed = np.empty(len(results), object)
        passed[:] = [pickle.dumps(result, protocol=5) for result in results]
        return {"id": rows["id"], "passed": passed}

    def _shard(self, number: int, passed: bytes | None) -> Any:
        chunks = self.task.chunks(number)
        earlier = [None] * len(chunks) if passed is None else pickle.loads(passed)
        parts = [self.work(chunk, before) for chunk, before in zip(chunks, earlier, strict=True)]
        return self.task.finish(number, parts) if self.last else parts


def run(
    task: Task, numbers: Sequence[int], *, workers: int, split: bool = False, kept: Path | None = None
) -> Iterator[tuple[int, Any]]:
    """Number and record of every shard; with `kept` of none. workers: of the first pool, or of the only one."""
    quieten(kept)
    legs = task.legs(split=split)
    rows = ray.data.range(len(numbers), override_num_blocks=len(numbers))
    for place, leg in enumerate(legs):
        rows = rows.map_batches(
            LegWork,
            fn_constructor_args=(task, numbers, leg),
            fn_constructor_kwargs={"last": place + 1 == len(legs)},
            batch_size=1,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
        )
    if kept is not None:
        rows.select_columns(["id"]).write_parquet(str(kept / "rows"))
        return
    for row in rows.iter_rows():
        yield numbers[row["id"]], pickle.loads(row["passed"])


def quieten(kept: Path | None) -> None:
    """Set this driver's context: no progress on the screen; a checkpoint where rows are kept."""
    from ray.data.checkpoint import CheckpointConfig

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = None
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        where = str(kept / "checkpoint")
        context.checkpoint_config = CheckpointConfig("id", where, delete_checkpoint_on_success=False)
