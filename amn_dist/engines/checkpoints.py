"""Checkpoints of a Fit: whole or not there at all; the newest that can be read is gone on from."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

from amn_dist.engines.engine import Engine
from amn_dist.engines.gang import Gang
from amn_dist.errors import StageError

KEEP = 2
"""Checkpoints that stay."""
STATE = "state.json"
"""Says what the checkpoint is; written last into the temporary folder."""
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError, BadZipFile)
"""What damaged files raise while they are read."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a checkpoint was taken, and by whom. consumed: global samples. files: bytes by relative path."""

    step: int
    consumed: int
    engine: str
    zero: int
    processes: int
    files: dict[str, int]


def save_checkpoint(folder: Path, engine: Engine, gang: Gang, state: State) -> None:
    """Write folder/NNNNNN under a temporary name, rename it, keep the newest two; every rank calls it."""
    temporary = folder / f".tmp-{state.step:06d}"
    if gang.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".tmp-*"):
            shutil.rmtree(left)
        temporary.mkdir()
    gang.wait()
    try:
        engine.save(temporary)
        gang.wait()
        if gang.rank == 0:
            _finish(temporary, folder / f"{state.step:06d}", state)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        told = " ".join(str(error).split())[:120]
        raise StageError(
            f"{folder}: checkpoint of step {state.step} cannot be written ({told}); older ones are whole; "
            "free space, then the same command goes on"
        ) from error
    if gang.rank == 0:
        for old in complete(folder)[KEEP:]:
            shutil.rmtree(old)
    gang.wait()


def resume(
    folder: Path, build: Callable[[], Engine], gang: Gang, expected: State, warn: Callable[[str], None]
) -> tuple[Engine, int]:
    """An engine restored from the newest readable checkpoint, and its step; a new one and 0 without any.

    Raises StageError for a checkpoint that is sound, but of another engine or another number of ZeRO processes.
    """
    engine = build()
    for name in gang.first([path.name for path in complete(folder)]):
        state, fault = _try_load(folder / name, engine, expected)
        if gang.sum(torch.tensor([float(fault is not None)], dtype=torch.float64)).item() == 0:
            assert state is not None
            return engine, state.step
        warn(f"{folder / name}: cannot be read ({fault or 'on another rank'}); the one before is taken")
        engine.close()
        engine = build()
    return engine, 0


def complete(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    found = [path for path in folder.glob("[0-9]*") if path.name.isdigit() and (path / STATE).is_file()]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def _try_load(path: Path, engine: Engine, expected: State) -> tuple[State | None, str | None]:
    try:
        state = State(**json.loads((path / STATE).read_text()))
        if _files(path) != state.files:
            return None, "files are missing or of another size"
        _check_maker(path, state, expected)
        engine.load(path)
    except UNREADABLE as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return state, None


def _check_maker(path: Path, state: State, expected: State) -> None:
    if (state.engine, state.zero) != (expected.engine, expected.zero):
        raise StageError(
            f"{path}: was made by engine {state.engine} with zero {state.zero}, found {expected.engine} with zero "
            f"{expected.zero}; go on with the same engine, or redo the stage"
        )
    if state.zero and state.processes != expected.processes:
        raise StageError(
            f"{path}: ZeRO {state.zero} split it over {state.processes} processes, found {expected.processes}; "
            "go on with as many, or redo the stage with engine.zero=0"
        )


def _finish(temporary: Path, final: Path, state: State) -> None:
    record: dict[str, Any] = {**asdict(state), "files": _files(temporary)}
    (temporary / STATE).write_text(json.dumps(record, indent=1))
    if final.exists():
        shutil.rmtree(final)
    os.replace(temporary, final)


def _files(path: Path) -> dict[str, int]:
    found = (file for file in path.rglob("*") if file.is_file() and file.name != STATE)
    return {file.relative_to(path).as_posix(): file.stat().st_size for file in sorted(found)}
