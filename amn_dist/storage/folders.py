"""Whole folders, on this machine or behind a URL: what is in them, removed, copied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from amn_dist.errors import ShardError, printable
from amn_dist.storage.paths import AnyPath, RemotePath

Item = TypeVar("Item")
Result = TypeVar("Result")

CONCURRENCY = 16
"""Requests under way at a time."""


def files_below(folder: AnyPath) -> dict[str, int]:
    """Bytes of every file in a folder and its folders, by relative path; none where there is no folder."""
    if isinstance(folder, Path):
        paths = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(paths)}
    files, folders = folder.children()
    for name in folders:
        files |= {f"{name}/{path}": size for path, size in files_below(folder / name).items()}
    return dict(sorted(files.items()))


def remove_folder(folder: AnyPath, *, first: Sequence[str] = (), last: Sequence[str] = ()) -> None:
    """Remove a folder with all that is in it; a process killed on the way leaves the files `last`, not those `first`.

    Raises ShardError naming folder and cause.
    """
    names = [name for name in files_below(folder) if name not in (*first, *last)]
    try:
        for group in (*([name] for name in first), names, *([name] for name in last)):
            in_parallel(lambda name: (folder / name).unlink(missing_ok=True), group)
        if isinstance(folder, Path) and folder.is_dir():
            shutil.rmtree(folder)
    except OSError as error:
        raise ShardError(f"{folder}: cannot be removed ({printable(error)}); remove it by hand") from error


def copy_files(source: AnyPath, target: AnyPath, names: Sequence[str]) -> None:
    """Make files of one folder files of another, of the same kind of place: by hard links where the file system has
    them, by copies inside the storage where it can."""
    target.mkdir(parents=True, exist_ok=True)
    in_parallel(lambda name: _copy(source / name, target / name), names)


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What some work yields for every item, done in no order; raises what the first that failed raised."""
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return list(pool.map(work, items))


def _copy(source: AnyPath, target: AnyPath) -> None:
    if isinstance(source, RemotePath) and isinstance(target, RemotePath):
        return source.copy_to(target)
    try:
        os.link(str(source), str(target))
    except OSError:
        shutil.copyfile(str(source), str(target))  # not copy2: the mode of new files is this user's
