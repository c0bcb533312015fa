"""Checkpoints of published code into our files and runs, and ours into theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from amn_dist.errors import ConfigError, ShardError, StageError, printable, quoted
from amn_dist.interfaces import Context
from amn_dist.methods import Stage
from amn_dist.models.backbones.architectures import ARCHITECTURES
from amn_dist.models.official import load_published, published_state
from amn_dist.models.published import Kind
from amn_dist.models.weights import check_fit, read_tensors, save_network
from amn_dist.runs.origins import file_digest, imported_origin
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import write_json
from amn_dist.runs.unfinished import work_of
from amn_dist.storage.atomic import atomic_file
from amn_dist.storage.paths import AnyPath

OURS = "backbone.features."
"""How most of our own names begin."""


@dataclass(frozen=True)
class ConvertedWeights:
    """What became of a checkpoint. keys: tensors in the file. tensors: in ours. classes: C, 0 where it knows none.

    note: what its user should look at.
    """

    path: AnyPath
    keys: int
    tensors: int
    classes: int
    note: str = ""


def convert_weights(file: Path, kind: Kind, out: Path) -> ConvertedWeights:
    """Write a published checkpoint (.pth, .pt, .safetensors) under our names as safetensors, whole or not at all.

    Raises ConfigError naming keys that are missing, unknown or misshapen; nothing in the file is executed.
    """
    if out.suffix != ".safetensors":
        raise ConfigError(f"{out}: found the ending {quoted(out.suffix)}, expected .safetensors")
    tensors = read_tensors(file)
    network, classes = _load_published(file, kind, tensors)
    with naming(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        save_network(network, out)
    return ConvertedWeights(out, len(tensors), len(network.state_dict()), classes)


def adopt_weights(pipeline: Pipeline, name: str, file: Path) -> ConvertedWeights:
    """Take a checkpoint, under published names or ours, as the result of a Fit; its origin says that it was imported.

    Raises ConfigError when it does not fit the configured network, StageError when the stage has work of its own.
    """
    stage = pipeline.stage(name)
    if stage.verb != "fit":
        raise ConfigError(f"{name}: is a {stage.verb}; weights belong to {', '.join(_fits(pipeline))}")
    tensors = read_tensors(file)
    network, note = untrained_network(pipeline, stage), ""
    if any(key.startswith(OURS) for key in tensors):
        check_fit(network.state_dict(), tensors, where=f"{file} (for {name})")
        network.load_state_dict(tensors)
    else:
        if stage.published is None:
            raise ConfigError(f"{file}: {name} is no published network; expected tensors under our names, {OURS}...")
        published, _ = _load_published(file, stage.published, tensors)
        check_fit(network.state_dict(), published.state_dict(), where=f"{file} (for {name} as configured)")
        network, note = published, _input_note(pipeline, stage)
    with pipeline.locked():
        _record_import(pipeline, stage, file, network)
    return ConvertedWeights(
        pipeline.run.checkpoint(name), len(tensors), len(network.state_dict()), pipeline.num_classes, note
    )


def export_weights(pipeline: Pipeline, name: str, out: Path) -> bool:
    """Write a Fit's weights: .pth or .safetensors under published names where the network is a published one.

    A .pth has every name the published code looks for; a .safetensors the first of each. Returns whether names are
    published ones; else they are ours. The file appears whole or not at all.
    """
    if out.suffix not in (".pth", ".safetensors"):
        raise ConfigError(f"{out}: found the ending {quoted(out.suffix)}, expected .pth or .safetensors")
    stage = pipeline.stage(name)
    if stage.verb != "fit":
        raise ConfigError(f"{name}: is a {stage.verb} and has no weights; expected {', '.join(_fits(pipeline))}")
    if not pipeline.run.is_done(stage):
        raise StageError(f"{pipeline.run.stage(name)}: not finished; run `amn run` until {name} first")
    ours = read_tensors(pipeline.run.checkpoint(name))
    theirs = None if stage.published is None else _published(stage.published, ours, aliases=out.suffix == ".pth")
    with naming(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(out, ours if theirs is None else theirs)
    return theirs is not None


@contextmanager
def naming(out: Path) -> Iterator[None]:
    """What keeps a file from being written is raised as a ShardError that names it."""
    try:
        yield
    except OSError as error:
        raise ShardError(f"{out}: cannot be written ({printable(error)}); make room or access, run again") from error


def untrained_network(pipeline: Pipeline, stage: Stage) -> nn.Module:
    """The network a Fit would train, with random weights."""
    section = getattr(pipeline.config, stage.name)
    random = section.model_copy(update={"backbone": section.backbone.model_copy(update={"weights": None})})
    assert stage.fit is not None
    return stage.fit(Context(pipeline.config.model_copy(update={stage.name: random}), pipeline.classes)).network()


def _input_note(pipeline: Pipeline, stage: Stage) -> str:
    """What to look at when weights under published names are not fed as the published code feeds them."""
    assert stage.fit is not None
    colour = stage.fit(Context(pipeline.config, pipeline.classes)).rule.colour
    wanted = ARCHITECTURES[getattr(pipeline.config, stage.name).backbone.name].colours[-1]
    if colour == wanted:
        return ""
    return (
        f"{stage.name}: published weights want {wanted} input, this run feeds {colour}; "
        f"unless they are your own, set {stage.name}.colour={wanted}"
    )


def _record_import(pipeline: Pipeline, stage: Stage, file: Path, network: nn.Module) -> None:
    """Make weights the result of a stage. done.json comes last, as after training."""
    folder = pipeline.run.stage(stage.name)
    begun = pipeline.run.origin(stage.name) is not None and pipeline.run.imported(stage.name) is None
    work = work_of(pipeline.run, stage)  # a gang started by hand leaves checkpoints without an origin
    if begun or work or pipeline.run.is_done(stage):
        own = f"this run has its own {stage.name} already" + (f" ({work})" if work else "")
        raise StageError(f"{folder}: {own}; remove that folder or take another --run")
    pipeline.describe()
    pipeline.run.begin(
        stage, imported_origin(pipeline.config, stage, file.name, file_digest(file), pipeline.num_classes)
    )
    save_network(network, pipeline.run.checkpoint(stage.name))
    digest = file_digest(pipeline.run.checkpoint(stage.name))
    write_json(folder / "done.json", {"digest": digest, "imported": file.name})


def _load_published(file: Path, kind: Kind, tensors: Mapping[str, Tensor]) -> tuple[nn.Module, int]:
    try:
        return load_published(kind, tensors)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _published(kind: Kind, ours: Mapping[str, Tensor], *, aliases: bool) -> dict[str, Tensor] | None:
    """Tensors under published names; None when the published network has other tensors."""
    try:
        theirs = published_state(kind, ours, aliases=aliases)
        load_published(kind, theirs)
    except (ConfigError, KeyError):
        return None
    return theirs


def _write(out: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic_file(out) as temporary:
        if out.suffix == ".pth":
            torch.save(dict(tensors), temporary)
        else:
            save_file(_contiguous(tensors), temporary)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _fits(pipeline: Pipeline) -> list[Any]:
    return [stage.name for stage in pipeline.stages if stage.verb == "fit"]
