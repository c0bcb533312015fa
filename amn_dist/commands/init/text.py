"""The configuration as a person reads it: sections with a line before each that says what was chosen and why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from amn_dist.commands.init.choices import Plan
from amn_dist.commands.init.networks import RECIPES
from amn_dist.errors import printable

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
"""What YAML does not take for a text unless it is quoted."""
WIDTH = 118
"""Columns of a comment."""


def config_text(plan: Plan, name: str) -> str:
    """The file."""
    lines = [*_head(plan, name)]
    for section, said, settings in _sections(plan):
        lines += [*_comment(said), f"{section}:", *(f"  {key}: {flow(value)}" for key, value in settings.items())]
    return "\n".join(lines) + "\n"


def flow(value: Any) -> str:
    """A value in YAML's flow style, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return json.dumps(value, ensure_ascii=not (isinstance(value, str) and value.isprintable()))


def _head(plan: Plan, name: str) -> Iterator[str]:
    train, machine = plan.train, plan.machine
    gpus = f"{machine.devices} GPUs of {machine.device_gib:.0f} GiB" if machine.devices else "no GPU"
    yield from _comment(
        f"Written by `amn init` for {train.count} images of {len(train.classes) - 1} classes, sides {train.least} to "
        f"{train.most} pixels ({train.long}x{train.short} in the middle), and a machine with {machine.cores} cores, "
        f"{machine.memory_gib:.0f} GiB and {gpus}. What is not said here is as published; amn_dist/config.py has every "
        "setting with its unit."
    )
    yield from _comment(f"Classes: {printable(', '.join(train.classes[1:]), 400)}")
    if not plan.pretrained:
        yield from _comment("NO PRETRAINED WEIGHTS were found: small networks from random weights; masks will be poor.")
    yield f"name: {flow(name)}"
    yield f"method: {plan.method}"
    yield "data:"
    yield f"  train: {flow(train.url)}"
    yield f"  val: {flow(None if plan.val is None else plan.val.url)}"


def _comment(text: str) -> list[str]:
    """A text as lines of comment; words stay whole."""
    lines, line = [], "#"
    for word in printable(text, 2000).split():
        if len(line) + 1 + len(word) > WIDTH and line != "#":
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line]


def _sections(plan: Plan) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, comment and settings of every section that is written, in the order of the method."""
    for stage in plan.stages:
        if stage.verb == "fit":
            yield stage.name, *_fit(plan, stage.name)
        elif stage.name in MAPS:
            yield stage.name, *MAPS[stage.name](plan)
    yield from _machinery(plan)


def _fit(plan: Plan, stage: str) -> tuple[str, dict[str, Any]]:
    backbone, batch, steps = plan.network(stage), plan.batch(stage), plan.steps(stage)
    settings: dict[str, Any] = {"backbone": backbone, "batch": batch}
    if micro := plan.micro_batch(stage, backbone["name"]):
        settings["micro_batch"] = micro
    settings |= {"steps": steps} if stage == "segment" else {"epochs": plan.epochs(stage)}
    settings |= CROPS[stage](plan) | dict(RECIPES[backbone["name"]].rates[stage])
    return f"{steps} steps of {batch} images. Rates: {RECIPES[backbone['name']].source}.", settings


def _rescaled(plan: Plan) -> dict[str, Any]:
    return {"crop": plan.crop, "rescale": plan.recipe.rescale}


CROPS = {
    "classify": lambda plan: {
        "crop": plan.crop,
        "long_side": [max(round(factor * plan.long), 16) for factor in (0.64, 1.28)],
    },
    "amn": _rescaled,
    "irn": lambda plan: {**_rescaled(plan), "radius": min(max(round(10 * plan.reach), 2), 10)},
    "segment": lambda plan: {"crop": plan.odd_crop, "scales": plan.recipe.scales},
    "discriminate": lambda plan: {
        "crop": plan.odd_crop,
        "scales": [0.5, 0.75, 1.0],
        "warmup": min(2 * plan.steps("discriminate") // plan.epochs("discriminate"), 661),
        "mask_padding": True,
    },
}
"""What a stage cuts from the images."""

SEEN = "Each scale is seen with its mirror image, and costs by its square."
MAPS = {
    "cam": lambda plan: (SEEN, {"scales": plan.scales}),
    "amn_map": lambda plan: (SEEN, {"scales": plan.scales}),
    "icd_map": lambda plan: (SEEN, {"scales": [1.0], "flip": True, "pad": None}),
    "walk": lambda plan: (
        "Reach and length in proportion to the images, length with its square; VOC's are 5 and 256.",
        {
            "pad": None,
            "radius": min(max(round(5 * plan.reach), 2), 5),
            "steps": min(max(round(256 * plan.reach**2), 16), 256),
        },
    ),
}
"""Comment and settings of Maps that depend on the images."""


def _machinery(plan: Plan) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Who trains, maps and decodes: what is installed, for the cores and the memory there are."""
    libraries, devices = plan.machine.libraries, plan.machine.devices
    processes = {"processes": "auto" if plan.processes == devices else plan.processes} if devices > 1 else {}
    yield "engine", "Who trains.", {"name": "deepspeed" if "deepspeed" in libraries else "torch", **processes}
    farm: dict[str, Any] = {"name": "ray" if "ray" in libraries else "local"}
    if plan.workers:
        farm["workers"] = plan.workers
    if plan.chunk < 32:
        farm["chunk"] = plan.chunk
    yield "farm", "Who maps: a worker a core, or as many as memory holds; chunks of samples.", farm
    yield "loader", "Who decodes.", {"name": "dali" if "dali" in libraries else "torchvision"}
