"""Files and folders that are exported to: a file is whole or absent, a folder is finished by the same command again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from amn_dist.documents import read_json
from amn_dist.errors import ConfigError, ShardError, printable
from amn_dist.shards.format import check_key
from amn_dist.storage.atomic import atomic_file

EXPORT = "export.json"
"""What a folder holds the export of; written before the first file."""
PART = ".part-"
"""What the name of an unfinished file begins with."""


def claim(folder: Path, export: dict[str, Any]) -> None:
    """Make a folder ready for one export. Raises ConfigError when it holds anything else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(PART))
        mark = folder / EXPORT
        if names and (EXPORT not in names or read_json(mark.read_bytes()) != export):
            raise ConfigError(
                f"{folder}: holds something else ({printable(', '.join(names[:3]))}); choose an empty or new folder"
            )
        for unfinished in folder.glob(f"{PART}*"):
            unfinished.unlink()
        put(mark, json.dumps(export, indent=1, sort_keys=True).encode())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder}: cannot be exported to ({printable(error)}); choose an empty or new folder"
        ) from error


def file_of(folder: Path, key: str, ending: str) -> Path:
    """Where the file of a sample goes; a key that would lead elsewhere raises ShardError."""
    return folder / f"{check_key(key)}{ending}"


def is_missing(path: Path) -> bool:
    """Whether a file of this export is still to be written."""
    return not path.is_file() or path.stat().st_size == 0


@contextmanager
def written(out: Path) -> Iterator[TextIO]:
    """A text file that is there whole or not at all; raises ShardError naming it when it cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(out) as temporary, temporary.open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise ShardError(f"{out}: cannot be written ({printable(error)}); make room, run again") from error


def put(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all; raises ShardError naming it when it cannot be written."""
    # Not durable: there are thousands, and an empty one counts as missing.
    unfinished = path.with_name(f"{PART}{os.getpid()}-{path.name}")
    try:
        with atomic_file(path, temporary=unfinished, durable=False) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ShardError(f"{path}: cannot be written ({printable(error)}); make room, run again") from error
