"""Checkpoints of a Fit: whole or not there at all; the newest that can be read is gone on from."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch

from amn_dist.config import EngineSection
from amn_dist.documents import read_json
from amn_dist.errors import StageError, printable
from amn_dist.storage.folders import files_below, remove_folder
from amn_dist.storage.paths import AnyPath
from amn_dist.training.engines.engine import Engine
from amn_dist.training.snapshot import UNREADABLE
from amn_dist.training.world import World, lost_peer

KEEP = 2
"""Checkpoints that stay, of those up to the last one saved."""
STATE = "state.json"
"""Says what the checkpoint is; written last into the temporary folder."""
STEP = re.compile(r"[0-9]{6,18}")
"""Name of a checkpoint's folder."""


DEVICE_MINUTES = 5.0
"""Between two checkpoints on a device unless told otherwise: it makes as many steps in seconds as a CPU in an hour."""

Count = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class State:
    """Where a checkpoint was taken, and by whom. consumed: global samples. files: bytes by relative path. mark: drawn
    for every checkpoint, which tells copies of it from others of the same step. machine: what its process trained on,
    such as `cuda in bf16`; empty in those of older versions."""

    step: Count
    consumed: Count
    engine: str
    zero: Count
    processes: Count
    files: dict[str, Count]
    mark: str = ""
    machine: str = ""


@dataclass(frozen=True, slots=True)
class StateFiles:
    """Of a State, what must be there."""

    files: dict[str, Count]


def checkpoint_seconds(section: EngineSection, device: torch.device) -> float:
    """Seconds there are at least between two checkpoints: `engine.checkpoint_minutes`."""
    if section.checkpoint_minutes == "auto":
        return 0.0 if device.type == "cpu" else 60 * DEVICE_MINUTES
    return 60 * section.checkpoint_minutes


def save_checkpoint(folder: Path, engine: Engine, world: World, state: State) -> None:
    """Write folder/NNNNNN under a temporary name, rename it, keep it and the one before; every rank calls it.

    A folder is moved whole, not file by file (storage/atomic.py): engines decide what files a checkpoint has, several
    ranks write into it, and it counts with all of them or not at all.
    Raises StageError on every rank when the first one cannot write.
    """
    temporary = folder / f".tmp-{state.step:06d}"
    for part in (
        lambda: _prepare(folder, temporary) if world.rank == 0 else None,
        lambda: engine.save(temporary),
        lambda: _finish(temporary, folder, state) if world.rank == 0 else None,
    ):
        fault = world.first(_fault(part, world))
        if fault is not None:
            shutil.rmtree(temporary, ignore_errors=True)
            raise StageError(
                f"{folder}: checkpoint of step {state.step} cannot be written ({fault}); older ones are whole; "
                "free space, then the same command goes on"
            )


def _fault(part: Callable[[], None], world: World) -> str | None:
    try:
        part()
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        if world.rank != 0 or lost_peer(error):
            raise
        return printable(error)
    return None


def resume(
    folder: Path, build: Callable[[], Engine], world: World, warn: Callable[[str], None], *, machine: str = ""
) -> tuple[Engine, int]:
    """An engine restored from the newest readable checkpoint, and its step; a new one and 0 without any.

    The checkpoint may be another engine's, ZeRO stage's, number of processes' or machine's; of another than `machine`
    there is a warning. Raises StageError, on every rank, when
    there are checkpoints and none can be read: training does not begin anew over them by itself.
    """
    engine = build()
    names = world.first([path.name for path in complete(folder)])
    for number, name in enumerate(names, 1):
        state, fault = _try_load(folder / name, engine)
        if world.sum(torch.tensor([float(fault is not None)], dtype=torch.float64)).item() == 0:
            assert state is not None
            if state.machine and machine and state.machine != machine:
                warn(f"{folder / name}: was trained on {state.machine}, goes on on {machine}; results mix the two")
            return engine, state.step
        engine.close()
        unreadable = f"{folder / name}: cannot be read ({fault or 'on another rank'})"
        if number == len(names):
            raise StageError(f"{unreadable}, and there is no older one; --redo of this stage drops it and begins anew")
        warn(f"{unreadable}; the one before is taken")
        engine = build()
    return engine, 0


def complete(folder: AnyPath) -> list[AnyPath]:
    """Finished checkpoints, newest first."""
    checkpoints = [path for path in folder.glob("[0-9]*") if STEP.fullmatch(path.name) and (path / STATE).is_file()]
    return sorted(checkpoints, key=lambda path: int(path.name), reverse=True)


def is_whole(path: AnyPath) -> bool:
    """Whether a finished checkpoint has all its files."""
    try:
        state: StateFiles = read_json((path / STATE).read_bytes(), StateFiles)
        return _files(path) == state.files
    except (OSError, ValueError):
        return False


def _try_load(path: Path, engine: Engine) -> tuple[State | None, str | None]:
    try:
        state: State = read_json((path / STATE).read_bytes(), State)
        if state.step != int(path.name):
            return None, f"{STATE} is of step {state.step}"
        if not is_whole(path):
            return None, "files are missing or of another size"
        engine.load(path)
    except UNREADABLE as error:
        return None, f"{type(error).__name__}: {printable(error)}"
    return state, None


def _prepare(folder: Path, temporary: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover)
    temporary.mkdir()


def _finish(temporary: Path, folder: Path, state: State) -> None:
    record: dict[str, Any] = {**asdict(state), "files": _files(temporary), "mark": secrets.token_hex(8)}
    (temporary / STATE).write_text(json.dumps(record, indent=1))
    final = folder / f"{state.step:06d}"
    if final.exists():
        shutil.rmtree(final)
    os.replace(temporary, final)
    # Newer ones could not be read, else this one would not have been trained again.
    newest = [path for path in complete(folder) if int(path.name) <= state.step][:KEEP]
    for old in complete(folder):
        if old not in newest:
            remove_folder(old, first=[STATE])


def _files(path: AnyPath) -> dict[str, int]:
    return {name: size for name, size in files_below(path).items() if name != STATE}
