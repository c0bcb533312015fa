"""Fits of a run: in this process, alone or as one rank of a gang, and gangs that are started for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from amn_dist.config import Config, EngineSection
from amn_dist.interfaces import Context
from amn_dist.methods import ARTEFACTS, Stage, maker_of
from amn_dist.ops.devices import has_gpu
from amn_dist.runs.experiment import Experiment
from amn_dist.runs.journal import Journal, journal
from amn_dist.runs.origins import file_digest
from amn_dist.runs.placement import check_training_device
from amn_dist.runs.run import Run, read_config, write_json
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.paths import AnyPath
from amn_dist.storage.scratch import scratch
from amn_dist.telemetry import Observe, StageLog, following, stage_log
from amn_dist.training.checkpoint_copies import workplace
from amn_dist.training.launchers import leaving_faults, train_together, train_with_torchrun, with_processes
from amn_dist.training.loop import STOP
from amn_dist.variables import whole_number

Labels = tuple[ShardSet, str] | None
"""The set with what a Fit learns from, and the field."""


def fit_stage(experiment: Experiment, stage: Stage, log: StageLog, log_copy: Journal) -> None:
    """Train a stage to its end, in this process or in a gang, and write down what it yielded."""
    (experiment.run.stage(stage.name) / STOP).unlink(missing_ok=True)  # it asked an earlier process
    if with_processes(experiment.config.engine).processes > 1 and "RANK" not in os.environ:
        _gang(experiment, stage, log, log_copy)
    else:
        if has_gpu():
            experiment.stop_workers()  # its workers hold the memory of the device that this process trains on
        _fit_here(experiment, stage, log, log_copy.try_push)
    digest = file_digest(experiment.run.checkpoint(stage.name))
    write_json(experiment.run.stage(stage.name) / "done.json", {"digest": digest})


def fit_member(experiment: Experiment, stage: Stage) -> None:
    """This rank's share of a Fit; the first rank keeps the log."""
    folder = experiment.run.stage(stage.name)
    with leaving_faults(folder):
        if whole_number("RANK", 0):
            return _fit_here(experiment, stage, lambda record: None, lambda: None)
        with journal(folder, "member") as log_copy, stage_log(log_copy.folder, stage.name, experiment.console) as log:
            _fit_here(experiment, stage, log, log_copy.try_push)


def train_member(folder: AnyPath, data: AnyPath, name: str) -> None:
    """One rank's share of a Fit of the run in `folder`, in a process that a launcher has told its rank."""
    experiment = Experiment(read_config(folder / "config.yaml"), Run(folder), data)
    fit_member(experiment, experiment.stage(name))


def _fit_here(experiment: Experiment, stage: Stage, observe: Observe, keep_log: Callable[[], None]) -> None:
    images, folder, labels = experiment.sets["train"], experiment.run.stage(stage.name), None
    if "label" in stage.reads:
        artefact = stage.reads["label"]
        labels = experiment.open(maker_of(artefact).name), ARTEFACTS[artefact].field
    train_here(experiment.config, stage, images, labels, folder=folder, observe=observe, keep_log=keep_log)


def _gang(experiment: Experiment, stage: Stage, log: StageLog, log_copy: Journal) -> None:
    folder, engine = experiment.run.stage(stage.name), with_processes(experiment.config.engine)
    by_ray = engine.launcher == "ray"
    train = _with_ray(experiment, stage, engine, log, log_copy) if by_ray else _with_torchrun(experiment, stage, engine)

    def start() -> None:
        with log_copy.handed_over():
            train()

    train_together(start, folder, retries=engine.retries, tell=lambda text: log({"warning": text}))


def _with_ray(
    experiment: Experiment, stage: Stage, engine: EngineSection, log: StageLog, log_copy: Journal
) -> Callable[[], None]:
    from amn_dist.farms.ray.training import leave_ray, train_in_ray

    experiment.stop_workers()  # its workers hold the cores and devices that the gang needs
    experiment.leaving.callback(leave_ray)
    work = partial(train_member, experiment.run.folder.resolve(), experiment.data.resolve(), stage.name)
    folder = experiment.run.stage(stage.name)
    own = folder if isinstance(folder, Path) else scratch(folder, "ray")

    def start() -> None:
        with following(log, bring=log_copy.try_pull, every_s=log_copy.look_s):
            train_in_ray(work, engine, farm=experiment.config.farm, address=experiment.address, folder=own)

    return start


def _with_torchrun(experiment: Experiment, stage: Stage, engine: EngineSection) -> Callable[[], None]:
    command = ["fit", str(experiment.run.folder / "config.yaml"), stage.name]
    command += ["--run", str(experiment.run.folder), "--data", str(experiment.data), "--member"]
    return partial(train_with_torchrun, command, engine)


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
