"""A Fit of a run in this process: alone, or as one rank of a gang."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amn_dist.config import Config
from amn_dist.interfaces import Context
from amn_dist.methods import Stage
from amn_dist.runs.placement import check_training_device
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.paths import AnyPath
from amn_dist.telemetry import Observe
from amn_dist.training.checkpoint_copies import workplace

Labels = tuple[ShardSet, str] | None
"""The set with what a Fit learns from, and the field."""


def train_here(
    config: Config,
    stage: Stage,
    images: ShardSet,
    labels: Labels,
    *,
    folder: AnyPath,
    observe: Observe,
    keep_log: Callable[[], None],
) -> None:
    """Train as the rank the environment says, from the newest checkpoint in the stage's folder; weights end there.

    keep_log: called with every checkpoint that is copied to a URL.
    """
    from amn_dist.loaders.batches import batches
    from amn_dist.loaders.carried import carried
    from amn_dist.training.engines.engine import joined
    from amn_dist.training.loop import fit as train

    assert stage.fit is not None
    check_training_device(config)
    task = stage.fit(Context(config, images.classes))

    def batches_from(consumed: int) -> Any:
        return batches(
            images,
            labels,
            rule=task.rule,
            batch=task.section.batch,
            seed=config.seed,
            consumed=consumed,
            rank=world.rank,
            world=world.size,
            loader=config.loader,
            trains_on=world.device.type,
        )

    def carried_from(consumed: int) -> Any:
        return carried(batches_from(consumed), world.device, task.rule.colour)

    def tell(text: str) -> None:
        observe({"warning": text})

    with (
        joined(config.engine) as world,
        workplace(folder, first=world.rank == 0, keep_log=keep_log, tell=tell) as place,
    ):
        train(
            task,
            carried_from,
            folder=place.folder,
            engine=config.engine,
            seed=config.seed,
            samples=len(images),
            observe=observe,
            saved=place.saved,
        )
