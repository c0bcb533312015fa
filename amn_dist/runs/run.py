"""A run's folder: which stage is done, from what it was made, and whether another run already made the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from amn_dist import documents
from amn_dist.config import Config, load_config, parse_config
from amn_dist.errors import PLACE, ConfigError, ShardError, StageError, printable
from amn_dist.interfaces import Context, Pretrained
from amn_dist.methods import Stage
from amn_dist.runs.code import code_digests, digest_of
from amn_dist.storage.atomic import commit
from amn_dist.storage.folders import copy_files, files_below, remove_folder
from amn_dist.storage.paths import AnyPath, RemotePath, is_file

WORKS_IN = {"fit": ("training.loop", "loaders.batches"), "map": ("farms.stream",), "score": ("farms.stream",)}
"""Modules below the package that every stage of a verb works in, beside its own."""

LAST_FILE = {"fit": "done.json", "map": "index.json", "score": "score.json"}
"""The file whose presence says that a stage is done; written after all others."""


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


@dataclass(frozen=True)
class Made:
    """Of a stage's last file, what it yielded."""

    digest: str


@dataclass(frozen=True)
class DataPlace:
    """data.json: where the sets of a run lie."""

    data: str


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: AnyPath

    def stage(self, name: str) -> AnyPath:
        """Folder of a stage."""
        return self.folder / name

    def siblings(self) -> list[Run]:
        """The other folders beside this one."""
        parent = self.folder.parent
        if isinstance(parent, RemotePath):
            inside = urlsplit(str(self.folder)).path.strip("/")
            names = sorted(parent.children()[1]) if inside else []
        else:
            names = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
        return [Run(parent / name) for name in names if parent / name != self.folder]

    def is_done(self, stage: Stage) -> bool:
        """Whether the stage's last file exists."""
        return (self.stage(stage.name) / LAST_FILE[stage.verb]).is_file()

    def checkpoint(self, name: str) -> AnyPath:
        """The weights a Fit ends with."""
        return self.stage(name) / "model.safetensors"

    def digest(self, stage: Stage) -> str:
        """What a finished stage yielded, as one sha256."""
        found: Made = read_json(self.stage(stage.name) / LAST_FILE[stage.verb], Made)
        return found.digest

    def origin(self, name: str) -> dict[str, Any] | None:
        """The recorded origin of a stage, None before it began."""
        path = self.stage(name) / "origin.json"
        if not path.is_file():
            return None
        read_json(path, Origin)  # refuses what is no origin; it may hold more, such as what work was begun from
        found: dict[str, Any] = read_json(path)
        return found

    def imported(self, name: str) -> str | None:
        """Name of the file a Fit's weights were imported from; None when they were trained, or are not there."""
        return (self.origin(name) or {"settings": {}})["settings"].get("imported")

    def begin(self, stage: Stage, origin: Origin) -> bool:
        """Prepare the stage's folder: go on with work of the same origin, drop unfinished work of another.

        What such work is worth is asked before (unfinished.py). Returns whether unfinished work was dropped.
        """
        folder = self.stage(stage.name)
        known = self.origin(stage.name)
        if known is not None and is_of(known, origin):
            return False
        if known is not None:
            drop(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "origin.json", origin.as_json())
        return known is not None

    def go_on(self, stage: Stage, origin: Origin, work: str) -> None:
        """Make unfinished work of another origin work of this one; origin.json keeps the other one under `before`.

        work: what there is of it, in words.
        """
        known = self.origin(stage.name) or {}
        earlier = known.pop("before", [])
        before = [*earlier, {**known, "reached": work}]
        write_json(self.stage(stage.name) / "origin.json", {**origin.as_json(), "before": before})

    def check_unchanged(self, stage: Stage, origin: Origin) -> None:
        """Refuse to build on a finished stage that was made with other settings or inputs."""
        known = self.origin(stage.name)
        if known is None:
            raise StageError(f"{self.stage(stage.name)}: finished but origin.json is missing; --redo {stage.name}")
        wanted = origin.as_json()
        wanted["settings"] = known_part(known["settings"], wanted["settings"])
        for part in ("settings", "inputs"):
            if known[part] != wanted[part]:
                changed = first_difference(known[part], wanted[part])
                raise ConfigError(
                    f"{self.stage(stage.name)}: made with {changed}; "
                    f"use --redo {stage.name} to make it again, or another --run to keep both"
                )

    def drop(self, names: list[str]) -> None:
        """Remove stages so that they are made again."""
        for name in names:
            drop(self.stage(name))


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
    if stage.checkpoint is not None:
        settings["infer"] = {"precision": config.infer.precision}
    if stage.map is not None and isinstance(work := stage.map(context), Pretrained):
        inputs = {**inputs, **{name: file_digest(weights_file(path)) for name, path in work.weight_files.items()}}
    if stage.seeded:
        settings["seed"] = config.seed
    if stage.verb != "score":
        settings["loader"] = config.loader.name
    return Origin(settings, inputs, *code_of(config, stage))


def code_of(config: Config, stage: Stage) -> tuple[str, dict[str, str]]:
    """Digest of the code a stage uses, and of every module of it."""
    modules = code_digests(*WORKS_IN[stage.verb], stage.module(config))
    return digest_of(modules), modules


def is_of(known: dict[str, Any], origin: Origin) -> bool:
    """Whether a recorded origin is this one; what was kept from before it does not count."""
    return {part: value for part, value in known.items() if part != "before"} == origin.as_json()


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
    return {} if weights in (None, "torchvision") else {"weights": file_digest(weights_file(str(weights)))}


def weights_file(weights: str) -> Path:
    """The path of a weights file. Raises ConfigError when there is none."""
    path = Path(weights)
    if not is_file(path):
        raise ConfigError(
            f"{printable(weights, PLACE)}: no such weights file; give a .pth or .safetensors path, or `torchvision`"
        )
    return path


def reuse(run: Run, stage: Stage, origin: Origin) -> str | None:
    """Take the stage from a sibling run that made it from the same origin. Returns that run's name, or None.

    Files are hard links, or copies inside the storage, so that neither run depends on the other's life.
    """
    if stage.verb == "score":
        return None
    for other in run.siblings():
        if other.is_done(stage) and other.origin(stage.name) == origin.as_json():
            take_over(other.stage(stage.name), run.stage(stage.name), last=LAST_FILE[stage.verb])
            return other.folder.name
    return None


def take_over(source: AnyPath, target: AnyPath, *, last: str) -> None:
    """Make a stage of another run one of this: its files (not its checkpoints), the last one after all others."""
    drop(target)
    names = [name for name in files_below(source) if "/" not in name and name != last]
    copy_files(source, target, names)
    copy_files(source, target, [last])


def drop(stage: AnyPath) -> None:
    """Remove a stage; killed on the way it counts as unfinished work of its origin."""
    remove_folder(stage, first=tuple(LAST_FILE.values()), last=["origin.json"])


def file_digest(path: AnyPath) -> str:
    """sha256 of a file."""
    if isinstance(path, Path):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for piece in path.pieces(path.size()):
        digest.update(piece)
    return digest.hexdigest()


def known_part(known: Any, wanted: Any) -> Any:
    """Settings without those that did not exist when the known ones were recorded, by an older version."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        return {key: known_part(known[key], value) for key, value in wanted.items() if key in known}
    return wanted


def first_difference(known: Any, wanted: Any, path: str = "") -> str:
    """The first place where two trees differ, as `a.b 1, now 2`."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        for key in sorted({*known, *wanted}):
            if known.get(key) != wanted.get(key):
                return first_difference(known.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    return f"{printable(path)} {printable(known)}, now {printable(wanted)}"


def read_config(path: AnyPath, settings: tuple[str, ...] = ()) -> Config:
    """A configuration, wherever it lies."""
    if isinstance(path, Path):
        return load_config(path, settings)
    try:
        return parse_config(path.read_text(), settings, where=str(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a configuration ({printable(error)})") from error


def read_json(path: AnyPath, form: Any = dict[str, Any]) -> Any:
    """A JSON file of a run. form: its type.

    Raises StageError when it cannot be read, ConfigError when it holds something else.
    """
    try:
        return documents.read_json(path.read_bytes(), form)
    except OSError as error:
        raise StageError(
            f"{path}: cannot be read ({printable(error)}); --redo {printable(path.parent.name)}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path}: {printable(error)}; mend it, or --redo {printable(path.parent.name)}") from error


def write_json(path: AnyPath, value: Any) -> None:
    """Write JSON so that the file is whole or absent."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_text(path: AnyPath, text: str) -> None:
    """Write a text file so that it is whole or absent."""
    write_bytes(path, text.encode())


def write_bytes(path: AnyPath, content: bytes) -> None:
    """Write a file so that it is whole or absent."""
    try:
        commit(path, content)
    except ShardError as error:
        raise StageError(str(error)) from error
