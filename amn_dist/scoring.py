"""The scores of a run: counts over everything its stages made, summed over shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from amn_dist.config import Config
from amn_dist.farms.farm import Farm
from amn_dist.farms.stream import Join, Source, TallyTask
from amn_dist.methods import scored
from amn_dist.shards.shardset import ShardSet
from amn_dist.stages.score import ScoreTally, artefact_scores
from amn_dist.telemetry import Observe

OpenJoin = Callable[[str, str, str], Join]
"""A field of a finished Map, under a name: name, stage, field."""


def score_tables(
    config: Config,
    sets: Mapping[str, ShardSet],
    made: list[str],
    join: OpenJoin,
    farm: Callable[[], Farm],
    observe: Observe,
) -> dict[str, Any]:
    """What score.json holds: class names, scores by set, what is missing.

    made: the finished stages among the scored. farm: starts the workers, when there is anything to score.
    """
    wanted = scored(config)
    found = {name: where for name, where in wanted.items() if where[0] in made}
    missing = [f"{name}: not made yet" for name in dict.fromkeys(w[0] for w in wanted.values() if w[0] not in made)]
    tables: dict[str, Any] = {}
    for over, images in sets.items():
        joins = {name: join(name, made, field) for name, (made, field, where) in found.items() if where == over}
        if "gt.png" not in images.fields:
            missing.append(f"{over}: its images have no truth (gt.png)")
        elif joins:
            tables[over] = _over_set(config, images, joins, farm(), observe)
    return {"classes": list(sets["train"].classes), "sets": tables, "missing": missing}


def _over_set(
    config: Config, images: ShardSet, joins: Mapping[str, Join], farm: Farm, observe: Observe
) -> dict[str, Any]:
    """Scores of artefacts over one set."""
    truth = Join("truth", images.url, "gt.png")
    source = Source(images.url, (truth, *joins.values()), config.loader, pixels=False, digest=images.digest)
    tally = ScoreTally(len(images.classes), tuple(joins))
    sums = _sums(TallyTask("score", source, tally, images.shard_sizes), farm, observe)
    rows = {name: artefact_scores(sums, name, threshold=config.score.threshold) for name in joins}
    return {"images": int(sums["images"][0]), "rows": rows}


def _sums(task: TallyTask, farm: Farm, observe: Observe) -> dict[str, np.ndarray]:
    sums: dict[str, np.ndarray] = {}
    start = time.monotonic()
    for report in farm.run(task, range(len(task.sizes))):
        observe(report.metrics(before=0, total=sum(task.sizes), seconds=time.monotonic() - start))
        for name, value in (report.record or {}).items():
            sums[name] = sums[name] + value if name in sums else value
    return sums
