"""Rates of runs beside a run, where they did the same work on a machine like this one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from amn_dist.commands.estimates.records import rated
from amn_dist.config import Config
from amn_dist.errors import AmnError
from amn_dist.methods import Stage
from amn_dist.runs.origins import decoding, resolved
from amn_dist.runs.run import Run, read_config, read_json
from amn_dist.shards.sample import evenly
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import read_report
from amn_dist.telemetry import environment

COSTLESS = {
    *("epochs", "steps", "lr", "lr_head", "lr_hidden", "weight_decay", "momentum", "momentum_slip", "schedule"),
    *("schedule_every", "checkpoint_every", "log_every", "smoothing", "warmup", "foreground", "background", "loss"),
    *("overlap", "coverage"),
}
"""Settings of a Fit or a Map that move no rate. `steps` of the walk do, and are looked at."""
MACHINE = ("cpu", "cores", "devices")
"""What must be alike of two machines."""
ALIKE = 0.15
"""By which the mean pixels of the images of two sets may differ."""
LOOKED = 64
"""Images whose sizes are read for that."""


def neighbour_rate(run: Run, config: Config, stage: Stage, images: ShardSet, followers: list[Stage]) -> float | None:
    """Images a second of a stage in a run beside this one that did the same work; None where none did.

    followers: Maps that take the stage's from memory, whose time is part of its own.
    """
    for other in run.siblings():
        with contextlib.suppress(AmnError, OSError, ValueError, KeyError, TypeError):
            rate = rated(other.stage(stage.name))
            alike = rate is not None and all(_same_work(other, config, step, images) for step in (stage, *followers))
            if alike and _same_workers(other, config):
                return rate
    return None


def _same_workers(other: Run, config: Config) -> bool:
    """Whether machine, processes and workers were like these."""
    here = environment()
    there, was = read_json(other.folder / "environment.json"), read_config(other.folder / "config.yaml")
    workers = [(c.farm.name, c.farm.workers, c.farm.threads, c.farm.pools, c.engine.processes) for c in (was, config)]
    return workers[0] == workers[1] and all(there[name] == here[name] for name in MACHINE)


def _same_work(other: Run, config: Config, stage: Stage, images: ShardSet) -> bool:
    """Whether a stage of another run was of the same network, crop, scales, precision, batch, device and images."""
    origin = other.origin(stage.name)
    if origin is None or "before" in origin:
        return False
    recorded = origin["settings"]
    network = True if stage.checkpoint is None else _same_network(other, config, stage.checkpoint)
    classes = len(other.class_table() or ()) == len(images.classes)
    return (
        network
        and classes
        and what_costs(recorded, stage) == what_costs(wanted(config, stage), stage)
        and (stage.verb == "fit" or _same_images(other, stage, images, origin["inputs"]))
    )


def wanted(config: Config, stage: Stage) -> dict[str, Any]:
    """As an origin of the stage would have it: its section, precision and device, who trains and decodes."""
    settings: dict[str, Any] = {stage.name: getattr(config, stage.name).model_dump(mode="json")}
    settings["loader"] = config.loader.name
    if stage.verb == "fit":
        settings["engine"] = {"name": config.engine.name, "precision": config.engine.precision}
        settings["resolved"] = resolved(config.engine.precision) | {"decoding": decoding(config.loader)}
    if stage.checkpoint is not None:
        settings["resolved"] = resolved(config.infer.precision)
    return settings


def what_costs(settings: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """The part of an origin's settings that a rate depends on."""
    costless = COSTLESS - {"steps"} if stage.verb == "map" else COSTLESS
    section = {name: value for name, value in settings[stage.name].items() if name not in costless}
    if "backbone" in section:
        section["backbone"] = {name: value for name, value in section["backbone"].items() if name != "weights"}
    if stage.outside is not None:
        section.pop(stage.outside, None)
    engine = {"engine": settings["engine"]["name"]} if stage.verb == "fit" else {}
    network = {"resolved": settings["resolved"]} if stage.verb == "fit" or stage.checkpoint is not None else {}
    return {"section": section, "loader": settings["loader"], **network, **engine}


def _same_network(other: Run, config: Config, fit: str) -> bool:
    """Whether the network of a Fit had the architecture that is configured."""
    recorded = (other.origin(fit) or {"settings": {}})["settings"][fit]
    section = getattr(config, fit)
    mine = section.model_dump(mode="json", include=set(section.ARCHITECTURE))
    theirs = {name: recorded[name] for name in mine}
    for tree in (mine, theirs):
        tree["backbone"] = {name: tree["backbone"][name] for name in ("name", "stride")}
    return bool(mine == theirs)


def _same_images(other: Run, stage: Stage, images: ShardSet, inputs: Mapping[str, str]) -> bool:
    """Whether a Map went over images of the same size in the mean, as its first shard says."""
    if inputs.get(f"{stage.over} set") == images.digest:
        return True
    report = read_report(other.stage(stage.name), 0)
    if report is None:
        return False
    theirs = sum(sample.height * sample.width for sample in report.samples) / report.count
    mine = mean_pixels(images)
    return abs(theirs - mine) <= ALIKE * mine


def mean_pixels(images: ShardSet) -> float:
    """Pixels of an image of a set, in the mean of a few."""
    entries = [images.entry(ordinal) for ordinal in evenly(len(images), LOOKED)]
    return sum(entry.height * entry.width for entry in entries) / len(entries)
