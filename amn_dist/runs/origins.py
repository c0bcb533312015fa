"""From what a stage is made: settings, digests of what it reads, code. Equal origins mean equal results."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from amn_dist.config import Config, Loader
from amn_dist.errors import PLACE, ConfigError, printable
from amn_dist.interfaces import Context, Pretrained
from amn_dist.loaders.decode import decoding_device
from amn_dist.methods import Stage
from amn_dist.models.precision import precision_name
from amn_dist.ops.devices import compute_device
from amn_dist.runs.code import code_digests, digest_of
from amn_dist.storage.paths import AnyPath, is_file

WORKS_IN = {"fit": ("training.loop", "loaders.batches"), "map": ("farms.stream",), "score": ("farms.stream",)}
"""Modules below the package that every stage of a verb works in, beside its own."""


SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Origin:
    """From what a stage is made. Equal origins mean equal results.

    code: digest of the code it uses. modules: the digests that one is made of, by path in the package.
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    code: str
    modules: dict[str, str] = field(default_factory=dict)

    def after(self, other: Origin) -> Origin:
        """This origin with all that a stage it follows is made from."""
        modules = {**other.modules, **self.modules}
        settings, inputs = {**other.settings, **self.settings}, {**other.inputs, **self.inputs}
        return Origin(settings, inputs, digest_of(modules), modules)

    def as_json(self) -> dict[str, Any]:
        return {"settings": self.settings, "inputs": self.inputs, "code": self.code, "modules": self.modules}


def origin_of(stage: Stage, context: Context, inputs: dict[str, str]) -> Origin:
    """The origin of a stage: its settings, the digests it reads (by stage, set or file), and the code it uses."""
    config = context.config
    section = getattr(config, stage.name)
    outside = None if stage.outside is None else {stage.outside}  # where a set lies is not what it holds
    # Scores are computed from counts, which no setting of theirs moves.
    settings: dict[str, Any] = (
        {} if stage.verb == "score" else {stage.name: section.model_dump(mode="json", exclude=outside)}
    )
    if stage.verb == "fit":
        settings["seed"] = config.seed
        settings["engine"] = {"name": config.engine.name, "precision": config.engine.precision}
        inputs = {**inputs, **weights_digest(config.initial_weights(section.backbone))}
        settings["resolved"] = resolved(config.engine.precision) | {"decoding": decoding(config.loader)}
    if stage.checkpoint is not None:
        settings["infer"] = {"precision": config.infer.precision}
        settings["resolved"] = resolved(config.infer.precision)
    if stage.map is not None and isinstance(work := stage.map(context), Pretrained):
        inputs = {**inputs, **{name: weights_file_digest(path) for name, path in work.weight_files.items()}}
    if stage.seeded:
        settings["seed"] = config.seed
    if stage.verb != "score":
        settings["loader"] = config.loader.name
    return Origin(settings, inputs, *code_of(config, stage))


def resolved(precision: str) -> dict[str, str]:
    """What `auto` comes to on this machine: the kind of device a network runs on, and what it computes in."""
    return {"device": compute_device(), "precision": precision_name(precision)}


def decoding(loader: Loader) -> str:
    """Where crops are decoded here: `cpu` or `gpu`, which read some pixels differently."""
    return "gpu" if loader.device == "gpu" else decoding_device(loader, compute_device())


def code_of(config: Config, stage: Stage) -> tuple[str, dict[str, str]]:
    """Digest of the code a stage uses, and of every module of it."""
    modules = code_digests(*WORKS_IN[stage.verb], stage.module(config))
    return digest_of(modules), modules


def is_of(recorded: dict[str, Any], origin: Origin) -> bool:
    """Whether a recorded origin is this one; what was kept from before it does not count.

    Origins of older versions do not say what `auto` came to; they are taken at their word.
    """
    made = origin.as_json()
    if "resolved" not in recorded["settings"]:
        made["settings"] = _without_resolved(made["settings"])
    return {part: value for part, value in recorded.items() if part != "before"} == made


def machine_difference(recorded: dict[str, Any], origin: Origin) -> str:
    """What a finished stage was made on, and what goes on here, in words; empty where they are alike or not known."""
    before, now = (settings.get("resolved") for settings in (recorded["settings"], origin.settings))
    if before is None or now is None or before == now:
        return ""
    return f"made {_on(before)}, what follows {_on(now)}"


def _on(machine: dict[str, str]) -> str:
    decoded = {"gpu": ", decoded there"}.get(machine.get("decoding", ""), "")
    return printable(f"on {machine.get('device')} in {machine.get('precision')}{decoded}")


def _without_resolved(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "resolved"}


def settings_difference(recorded: dict[str, Any], origin: Origin) -> str:
    """The first setting that a finished stage was made with and that differs now, in words; empty without any.

    Settings that an older version did not have are not compared, nor is what `auto` came to: what is finished stays
    what it is, wherever the run goes on.
    """
    before, now = (_without_resolved(settings) for settings in (recorded["settings"], origin.settings))
    now = known_part(before, now)
    return "" if before == now else first_difference(before, now)


def imported_origin(config: Config, stage: Stage, file: str, digest: str, num_classes: int) -> Origin:
    """The origin of a Fit whose weights come from a file: that file, and what the network they fit looks like.

    It never equals the origin of a trained stage, so that no run takes one for the other.
    """
    section = getattr(config, stage.name).model_dump(mode="json", include=set(stage.architecture(config)))
    network = {**section, "backbone": {part: section["backbone"][part] for part in ("name", "stride")}}
    settings = {stage.name: network, "imported": file, "classes": num_classes}
    return Origin(settings, {"file": digest}, *code_of(config, stage))


def weights_digest(weights: str | None) -> dict[str, str]:
    """Digest of a weights file, so that another file under the same name is another input."""
    return {} if weights in (None, "torchvision") else {"weights": weights_file_digest(str(weights))}


def weights_file(weights: str) -> Path:
    """The path of a weights file. Raises ConfigError when there is none."""
    path = Path(weights)
    if not is_file(path):
        fault = "a folder, not a weights file" if os.path.isdir(path) else "no such weights file"
        raise ConfigError(f"{printable(weights, PLACE)}: {fault}; give a .pth or .safetensors path, or `torchvision`")
    return path


def weights_file_digest(weights: str) -> str:
    """sha256 of a weights file, read once while it stays as it is: a run asks for its origins many times."""
    path = weights_file(weights).resolve()
    state = path.stat()
    return _digest_of_state(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest_of_state(path: Path, *state: int) -> str:
    return file_digest(path)


def file_digest(path: AnyPath) -> str:
    """sha256 of a file."""
    if isinstance(path, Path):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for piece in path.pieces(path.size()):
        digest.update(piece)
    return digest.hexdigest()


def known_part(recorded: Any, wanted: Any) -> Any:
    """Settings without those that did not exist when the known ones were recorded, by an older version."""
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        return {key: known_part(recorded[key], value) for key, value in wanted.items() if key in recorded}
    return wanted


def first_difference(recorded: Any, wanted: Any, path: str = "") -> str:
    """The first place where two trees differ, as `a.b 1, now 2`."""
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        for key in sorted({*recorded, *wanted}):
            if recorded.get(key) != wanted.get(key):
                return first_difference(recorded.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    return f"{printable(path)} {_shown(recorded)}, now {_shown(wanted)}"


def _shown(value: Any) -> str:
    """A value for a message; of a digest its beginning, which tells it from another."""
    return f"{value[:12]}..." if isinstance(value, str) and SHA256.fullmatch(value) else printable(value)
