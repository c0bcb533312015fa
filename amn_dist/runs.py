"""A run on disk: which stage is done, from what it was made, and whether another run already made the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from amn_dist.config import Config
from amn_dist.errors import ConfigError, StageError
from amn_dist.methods import Stage

CODE_ROOMS = ("config.py", "records.py", "verbs.py", "ops", "models", "shards", "loaders", "engines", "farms", "stages")
"""The part of the package whose change can move a stage's result."""

LAST_FILE = {"fit": "done.json", "map": "index.json", "score": "score.json"}
"""The file whose presence says that a stage is done; written after all others."""


ARCHITECTURE = {"backbone", "condition", "cam_head", "width", "colour", "branches"}
"""Settings of a Fit that say what its network is."""


@dataclass(frozen=True)
class Origin:
    """From what a stage is made. Equal origins mean equal results."""

    settings: dict[str, Any]
    inputs: dict[str, str]
    code: str

    def after(self, other: Origin) -> Origin:
        """This origin with all that a stage it follows is made from."""
        return Origin({**other.settings, **self.settings}, {**other.inputs, **self.inputs}, self.code)

    def as_json(self) -> dict[str, Any]:
        return {"settings": self.settings, "inputs": self.inputs, "code": self.code}


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path

    def __post_init__(self) -> None:
        if re.match(r"[a-z][a-z0-9+]+:/", str(self.folder)):
            raise ConfigError(
                f"{self.folder}: a run is kept in a folder of a file system, found a URL; data may be one"
            )

    def stage(self, name: str) -> Path:
        """Folder of a stage."""
        return self.folder / name

    def is_done(self, stage: Stage) -> bool:
        """Whether the stage's last file exists."""
        return (self.stage(stage.name) / LAST_FILE[stage.verb]).is_file()

    def checkpoint(self, name: str) -> Path:
        """The weights a Fit ends with."""
        return self.stage(name) / "model.safetensors"

    def digest(self, stage: Stage) -> str:
        """What a finished stage yielded, as one sha256."""
        last = read_json(self.stage(stage.name) / LAST_FILE[stage.verb])
        return str(last["digest"])

    def origin(self, name: str) -> dict[str, Any] | None:
        """The recorded origin of a stage, None before it began."""
        path = self.stage(name) / "origin.json"
        return read_json(path) if path.is_file() else None

    def imported(self, name: str) -> str | None:
        """Name of the file a Fit's weights were imported from; None when they were trained, or are not there."""
        return (self.origin(name) or {"settings": {}})["settings"].get("imported")

    def begin(self, stage: Stage, origin: Origin) -> bool:
        """Prepare the stage's folder: go on with work of the same origin, drop unfinished work of another.

        Returns whether unfinished work was dropped.
        """
        folder = self.stage(stage.name)
        known = self.origin(stage.name)
        dropped = known is not None and known != origin.as_json()
        if dropped:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "origin.json", origin.as_json())
        return dropped

    def check_unchanged(self, stage: Stage, origin: Origin) -> None:
        """Refuse to build on a finished stage that was made with other settings or inputs."""
        known = self.origin(stage.name)
        if known is None:
            raise StageError(f"{self.stage(stage.name)}: finished but origin.json is missing; --redo {stage.name}")
        wanted = origin.as_json()
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
            folder = self.stage(name)
            if folder.is_dir():
                shutil.rmtree(folder)


def origin_of(config: Config, stage: Stage, inputs: dict[str, str]) -> Origin:
    """The origin of a stage: its settings, the digests it reads (by stage or set), and this code."""
    section = getattr(config, stage.name)
    outside = None if stage.given is None else {stage.given[0]}  # where a set lies is not what it holds
    settings: dict[str, Any] = {stage.name: section.model_dump(mode="json", exclude=outside)}
    if stage.verb == "fit":
        settings["seed"] = config.seed
        settings["engine"] = {"name": config.engine.name, "precision": config.engine.precision}
        inputs = {**inputs, **weights_digest(config.initial_weights(section.backbone))}
    if stage.checkpoint is not None:
        settings["infer"] = {"precision": config.infer.precision}
    if stage.name == "amn_map":
        settings["seed"] = config.seed
    if stage.verb != "score":
        settings["loader"] = config.loader.name
    return Origin(settings=settings, inputs=inputs, code=code_digest())


def imported_origin(config: Config, stage: Stage, file: str, digest: str, num_classes: int) -> Origin:
    """The origin of a Fit whose weights come from a file: that file, and what the network they fit looks like.

    It never equals the origin of a trained stage, so that no run takes one for the other.
    """
    section = getattr(config, stage.name).model_dump(mode="json", include=ARCHITECTURE)
    network = {**section, "backbone": {part: section["backbone"][part] for part in ("name", "stride")}}
    settings = {stage.name: network, "imported": file, "classes": num_classes}
    return Origin(settings=settings, inputs={"file": digest}, code=code_digest())


def weights_digest(weights: str | None) -> dict[str, str]:
    """Digest of a weights file, so that another file under the same name is another input."""
    if weights is None or weights == "torchvision":
        return {}
    path = Path(weights)
    if not path.is_file():
        raise ConfigError(f"{weights}: no such weights file; give a .pth or .safetensors path, or `torchvision`")
    return {"weights": file_digest(path)}


def reuse(run: Run, stage: Stage, origin: Origin) -> str | None:
    """Take the stage from a sibling run that made it from the same origin. Returns that run's name, or None.

    Files are hard links where the file system has them, so that neither run depends on the other's life.
    """
    if stage.verb == "score":
        return None
    for other in sorted(path for path in run.folder.parent.iterdir() if path.is_dir() and path != run.folder):
        found = Run(other)
        if found.is_done(stage) and found.origin(stage.name) == origin.as_json():
            link_folder(found.stage(stage.name), run.stage(stage.name), last=LAST_FILE[stage.verb])
            return other.name
    return None


def link_folder(source: Path, target: Path, *, last: str) -> None:
    """Link or copy the files of a folder (not its checkpoints), its last file after all others."""
    if target.is_dir():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    names = sorted(path.name for path in source.iterdir() if path.is_file() and path.name != last)
    for name in (*names, last):
        try:
            os.link(source / name, target / name)
        except OSError:
            shutil.copy2(source / name, target / name)


@cache
def code_digest() -> str:
    """Digest of the source that decides results."""
    root = Path(__file__).parent
    files = [
        path
        for room in CODE_ROOMS
        for path in ((root / room).rglob("*.py") if (root / room).is_dir() else [root / room])
    ]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_difference(known: Any, wanted: Any, path: str = "") -> str:
    """The first place where two trees differ, as `a.b 1, now 2`."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        for key in sorted({*known, *wanted}):
            if known.get(key) != wanted.get(key):
                return first_difference(known.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    return f"{path} {known}, now {wanted}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run. Raises StageError when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{path}: cannot be read ({error}); --redo {path.parent.name}") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is whole or absent."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it is whole or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StageError(f"{path}: cannot be written ({error}); free space or permissions, then run again") from error
