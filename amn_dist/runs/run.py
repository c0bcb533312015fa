"""A run's folder: which stage is done, and from what it was made."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from amn_dist import documents
from amn_dist.config import Config, load_config, parse_config
from amn_dist.errors import ConfigError, ShardError, StageError, printable
from amn_dist.methods import STAGES, Stage
from amn_dist.runs.origins import Origin, first_difference, is_of, settings_difference
from amn_dist.shards.shardset import ShardSet
from amn_dist.storage.atomic import commit
from amn_dist.storage.folders import remove_folder
from amn_dist.storage.paths import AnyPath, RemotePath, is_file

CLASSES = "classes.json"
"""In a run's folder: class names in the order of their ids, so that a run can be used where its data is not."""
LAST_FILE = {"fit": "done.json", "map": "index.json", "score": "score.json"}
"""The file whose presence says that a stage is done; written after all others."""


@dataclass(frozen=True)
class LastFile:
    """Of a stage's last file, what it yielded."""

    digest: str


@dataclass(frozen=True)
class DataFile:
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
        """The other folders beside this one; none where nobody may look."""
        parent, names = self.folder.parent, list[str]()
        if isinstance(parent, RemotePath):
            inside = urlsplit(str(self.folder)).path.strip("/")
            names = sorted(parent.children()[1]) if inside else []
        else:
            with suppress(OSError), os.scandir(parent) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
        return [Run(parent / name) for name in names if parent / name != self.folder]

    def class_table(self) -> tuple[str, ...] | None:
        """Class names in the order of their ids, as they were kept when the run began; None in runs of before that."""
        path = self.folder / CLASSES
        return tuple(read_json(path, list[str])) if is_file(path) else None

    def mapped_classes(self) -> tuple[str, ...] | None:
        """Class names as the finished Maps of the run have them; None where there is none."""
        places = (self.stage(stage.name) for stage in STAGES if stage.verb == "map")
        made = next((place for place in places if is_file(place / LAST_FILE["map"])), None)
        return None if made is None else ShardSet.open(str(made)).classes

    def is_done(self, stage: Stage) -> bool:
        """Whether the stage's last file exists."""
        return is_file(self.stage(stage.name) / LAST_FILE[stage.verb])

    def checkpoint(self, name: str) -> AnyPath:
        """The weights a Fit ends with."""
        return self.stage(name) / "model.safetensors"

    def digest(self, stage: Stage) -> str:
        """What a finished stage yielded, as one sha256."""
        last_file: LastFile = read_json(self.stage(stage.name) / LAST_FILE[stage.verb], LastFile)
        return last_file.digest

    def origin(self, name: str) -> dict[str, Any] | None:
        """The recorded origin of a stage, None before it began."""
        path = self.stage(name) / "origin.json"
        if not is_file(path):
            return None
        read_json(path, Origin)  # refuses what is no origin; it may hold more, such as what work was begun from
        origin: dict[str, Any] = read_json(path)
        return origin

    def imported(self, name: str) -> str | None:
        """Name of the file a Fit's weights were imported from; None when they were trained, or are not there."""
        return (self.origin(name) or {"settings": {}})["settings"].get("imported")

    def begin(self, stage: Stage, origin: Origin) -> bool:
        """Prepare the stage's folder: go on with work of the same origin, drop unfinished work of another.

        What such work is worth is asked before (unfinished.py). Returns whether unfinished work was dropped.
        """
        folder = self.stage(stage.name)
        recorded = self.origin(stage.name)
        if recorded is not None and is_of(recorded, origin):
            return False
        if recorded is not None:
            drop(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "origin.json", origin.as_json())
        return recorded is not None

    def go_on(self, stage: Stage, origin: Origin, work: str) -> None:
        """Make unfinished work of another origin work of this one; origin.json keeps the other one under `before`.

        work: what there is of it, in words.
        """
        recorded = self.origin(stage.name) or {}
        earlier = recorded.pop("before", [])
        before = [*earlier, {**recorded, "reached": work}]
        write_json(self.stage(stage.name) / "origin.json", {**origin.as_json(), "before": before})

    def check_unchanged(self, stage: Stage, origin: Origin) -> None:
        """Refuse to build on a finished stage that was made with other settings or inputs."""
        recorded = self.origin(stage.name)
        if recorded is None:
            raise StageError(f"{self.stage(stage.name)}: finished but origin.json is missing; --redo {stage.name}")
        changed = settings_difference(recorded, origin)
        if not changed and recorded["inputs"] != origin.inputs:
            changed = first_difference(recorded["inputs"], origin.inputs) + ", by digest: it holds something else now"
        if changed:
            raise ConfigError(
                f"{self.stage(stage.name)}: made with {changed}; "
                f"use --redo {stage.name} to make it again, or another --run to keep both"
            )

    def drop(self, names: list[str]) -> None:
        """Remove stages so that they are made again."""
        for name in names:
            drop(self.stage(name))


def drop(stage: AnyPath) -> None:
    """Remove a stage; killed on the way it counts as unfinished work of its origin."""
    remove_folder(stage, first=tuple(LAST_FILE.values()), last=["origin.json"])


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
